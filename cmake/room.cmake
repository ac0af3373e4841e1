# expert_room(<name> SOURCES a.cpp … LINKS <targets>): one folder of src/ as a static library expert_<name>.
# SEPARATE: its files share names in their anonymous namespaces, so they are never compiled as one (CMAKE_UNITY_BUILD).
# Includes are written from src/ ("core/error.h"), so a reader sees which room a header belongs to.
function(expert_warnings target)
  target_compile_options(${target} PRIVATE -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wno-sign-conversion)
  if(EXPERT_WERROR)
    target_compile_options(${target} PRIVATE -Werror)
  endif()
endfunction()

function(expert_room name)
  cmake_parse_arguments(room "SEPARATE" "" "SOURCES;LINKS;PRIVATE_LINKS" ${ARGN})
  add_library(expert_${name} STATIC ${room_SOURCES})
  if(room_SEPARATE)
    set_target_properties(expert_${name} PROPERTIES UNITY_BUILD OFF)
  endif()
  target_include_directories(expert_${name} PUBLIC ${PROJECT_SOURCE_DIR}/src)
  target_link_libraries(expert_${name} PUBLIC ${room_LINKS} PRIVATE ${room_PRIVATE_LINKS})
  if(EXPERT_FUZZ)
    target_compile_options(expert_${name} PRIVATE -O2)  # executions per second count; the tests themselves stay at -O1
  endif()
  expert_warnings(expert_${name})
  set_property(GLOBAL APPEND PROPERTY EXPERT_ROOMS expert_${name})
endfunction()

# expert_test(<name> SOURCES a.cpp … LINKS <targets> LABELS l): one doctest program, one ctest entry.
function(expert_test name)
  cmake_parse_arguments(test "" "" "SOURCES;LINKS;LABELS" ${ARGN})
  add_executable(${name} ${test_SOURCES})
  target_link_libraries(${name} PRIVATE ${test_LINKS} doctest::doctest)
  target_compile_definitions(${name} PRIVATE EXPERT_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR}/tests ${PROJECT_SOURCE_DIR})
  expert_warnings(${name})
  add_test(NAME ${name} COMMAND ${name})
  if(test_LABELS)
    set_tests_properties(${name} PROPERTIES LABELS "${test_LABELS}")
  endif()
endfunction()

# expert_fuzzer(<name> SOURCE fuzz_x.cpp LINKS <targets>): one libFuzzer program (clang, EXPERT_FUZZ=ON).
function(expert_fuzzer name)
  cmake_parse_arguments(fuzz "" "SOURCE" "LINKS" ${ARGN})
  add_executable(${name} ${fuzz_SOURCE})
  target_link_libraries(${name} PRIVATE ${fuzz_LINKS})
  target_compile_options(${name} PRIVATE -fsanitize=fuzzer,address,undefined)
  target_link_options(${name} PRIVATE -fsanitize=fuzzer,address,undefined)
endfunction()
