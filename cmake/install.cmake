# What `cmake --install` puts where: library, header, expert-cli, bundled models, and how others find them
# (find_package(expert) → expert::expert, pkg-config expert). A Python wheel (SKBUILD) carries all but the last two.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

if(NOT BUILD_SHARED_LIBS)
  message(STATUS "expert: only the shared library can be installed (BUILD_SHARED_LIBS=ON)")
  return()
endif()

install(TARGETS expert EXPORT expert-targets LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
if(EXPERT_CLI)
  install(TARGETS expert-cli RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()
install(DIRECTORY ${PROJECT_SOURCE_DIR}/models DESTINATION ${CMAKE_INSTALL_DATADIR}/expert)

if(NOT SKBUILD)
  set(expert_config_dir ${CMAKE_INSTALL_LIBDIR}/cmake/expert)
  install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/expert DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
  install(EXPORT expert-targets NAMESPACE expert:: FILE expert-config.cmake DESTINATION ${expert_config_dir})
  write_basic_package_version_file(${PROJECT_BINARY_DIR}/expert-config-version.cmake COMPATIBILITY SameMinorVersion)
  file(RELATIVE_PATH from_pc_to_prefix /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)  # so that the folder may be moved
  configure_file(${PROJECT_SOURCE_DIR}/cmake/expert.pc.in ${PROJECT_BINARY_DIR}/expert.pc @ONLY)
  install(FILES ${PROJECT_BINARY_DIR}/expert-config-version.cmake DESTINATION ${expert_config_dir})
  install(FILES ${PROJECT_BINARY_DIR}/expert.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
endif()
