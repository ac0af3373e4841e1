# An overlay port over the checkout it stands in:
#   vcpkg install libexpert --overlay-ports=packaging/vcpkg/ports
# The vcpkg tool could not be had where this was written: tests/install/test_packaging.py checks the fields of both
# files, nobody has built the port yet.
get_filename_component(SOURCE_PATH "${CURRENT_PORT_DIR}/../../../.." ABSOLUTE)

vcpkg_cmake_configure(
  SOURCE_PATH "${SOURCE_PATH}"
  OPTIONS -DEXPERT_CLI=OFF -DEXPERT_TESTS=OFF)
vcpkg_cmake_install()
vcpkg_cmake_config_fixup(PACKAGE_NAME expert CONFIG_PATH lib/cmake/expert)
vcpkg_fixup_pkgconfig()
file(REMOVE_RECURSE "${CURRENT_PACKAGES_DIR}/debug/include" "${CURRENT_PACKAGES_DIR}/debug/share")
vcpkg_install_copyright(FILE_LIST "${SOURCE_PATH}/LICENSE" "${SOURCE_PATH}/THIRD_PARTY_NOTICES.md")
