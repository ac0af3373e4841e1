# What `cmake --install` puts where: library, headers, expert-cli, bundled models, licence notices, and how others find
# them (find_package(expert) → expert::expert, pkg-config expert). A Python wheel (SKBUILD) carries all but the last two.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

install(TARGETS expert EXPORT expert-targets
  LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
if(EXPERT_CUDA)  # beside the library, which looks for it there
  install(TARGETS expert_cuda LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
endif()
if(EXPERT_CLI)
  install(TARGETS expert-cli RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()
install(DIRECTORY ${PROJECT_SOURCE_DIR}/models DESTINATION ${CMAKE_INSTALL_DATADIR}/expert)
install(FILES ${PROJECT_SOURCE_DIR}/LICENSE ${PROJECT_SOURCE_DIR}/THIRD_PARTY_NOTICES.md
  DESTINATION ${CMAKE_INSTALL_DATADIR}/expert)

if(NOT SKBUILD)
  set(expert_config_dir ${CMAKE_INSTALL_LIBDIR}/cmake/expert)
  install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/expert DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
  install(EXPORT expert-targets NAMESPACE expert:: DESTINATION ${expert_config_dir})
  configure_package_config_file(${PROJECT_SOURCE_DIR}/cmake/expert-config.cmake.in
    ${PROJECT_BINARY_DIR}/expert-config.cmake INSTALL_DESTINATION ${expert_config_dir})
  write_basic_package_version_file(${PROJECT_BINARY_DIR}/expert-config-version.cmake COMPATIBILITY SameMinorVersion)
  install(FILES ${PROJECT_BINARY_DIR}/expert-config.cmake ${PROJECT_BINARY_DIR}/expert-config-version.cmake
    DESTINATION ${expert_config_dir})

  # What a static library leaves to its user to link; not private, as with pkg-config --static, which would ask for the
  # static libraries that libarchive could be linked with as well.
  if(BUILD_SHARED_LIBS)
    set(pc_requires "")
    set(pc_libs "")
    set(pc_cflags "")
  else()
    set(pc_requires "fmt libsodium")
    if(EXPERT_PACKAGES)
      string(APPEND pc_requires " libarchive")
    endif()
    if(crypto_FOUND)
      string(APPEND pc_requires " libcrypto")
    endif()
    set(pc_libs " -lstdc++ -lm -lpthread -ldl")
    set(pc_cflags " -DEXPERT_STATIC")
  endif()
  file(RELATIVE_PATH from_pc_to_prefix /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)  # so that the folder may be moved
  configure_file(${PROJECT_SOURCE_DIR}/cmake/expert.pc.in ${PROJECT_BINARY_DIR}/expert.pc @ONLY)
  install(FILES ${PROJECT_BINARY_DIR}/expert.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
  if(PROJECT_IS_TOP_LEVEL)
    include(${PROJECT_SOURCE_DIR}/cmake/package.cmake)
  endif()
endif()
