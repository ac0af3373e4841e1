# `cpack -G DEB` in the build folder: libexpert with header, command line and bundled models as a Debian package.
set(CPACK_PACKAGE_NAME libexpert)
set(CPACK_PACKAGE_VENDOR "hivellm")
set(CPACK_PACKAGE_CONTACT "hivellm <maintainers@hivellm.invalid>")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "one small base language model, many experts that bend it per request")
set(CPACK_PACKAGE_DESCRIPTION "An embeddable library that keeps one small base language model resident and lets many
experts (LoRA adapters) bend it per request, composed while it runs, never merged.")
set(CPACK_PACKAGE_VERSION ${PROJECT_VERSION})
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_RESOURCE_FILE_LICENSE ${PROJECT_SOURCE_DIR}/LICENSE)
set(CPACK_STRIP_FILES ON)
set(CPACK_GENERATOR DEB)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION libs)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)  # names the packages of the libraries that are linked
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)
# Only what `cmake --install` installs; the Node component has packages of its own.
set(CPACK_COMPONENTS_ALL Unspecified)
include(CPack)
