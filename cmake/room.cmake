# expert_room(<name> SOURCES a.cpp … LINKS <targets>): one folder of src/ as a static library expert_<name>.
# UNIT: how many of its files are compiled as one (CMAKE_UNITY_BUILD), few enough that two cores end at the same time.
# COLD: nothing in it is called per weight, logit or byte, so it is optimised less; the compiler needs two thirds of the time.
# PARSES: fuzz targets run through it, so where there are any its branches are counted, or they would search blindly. Its tests
# then take up to twice as long.
# Includes are written from src/ ("core/error.h"), so a reader sees which room a header belongs to.
function(expert_warnings target)
  target_compile_options(${target} PRIVATE -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wno-sign-conversion)
  if(EXPERT_WERROR)
    target_compile_options(${target} PRIVATE -Werror)
  endif()
endfunction()

function(expert_cold target)
  target_compile_options(${target} PRIVATE $<$<CONFIG:Release>:-O1>)
endfunction()

function(expert_room name)
  cmake_parse_arguments(room "COLD;PARSES" "UNIT" "SOURCES;LINKS;PRIVATE_LINKS" ${ARGN})
  add_library(expert_${name} STATIC ${room_SOURCES})
  if(room_UNIT)
    set_target_properties(expert_${name} PROPERTIES UNITY_BUILD_BATCH_SIZE ${room_UNIT})
  endif()
  if(room_COLD)
    expert_cold(expert_${name})
  endif()
  if(room_PARSES AND EXPERT_FUZZ)  # what -fsanitize=fuzzer-no-link means; that itself would refuse headers shared with other rooms
    target_compile_options(expert_${name} PRIVATE
      -fsanitize-coverage=inline-8bit-counters,indirect-calls,trace-cmp,pc-table -fno-builtin-bcmp -fno-builtin-memcmp)
  endif()
  if(NOT name STREQUAL "core")
    target_precompile_headers(expert_${name} REUSE_FROM expert_core)
  endif()
  target_include_directories(expert_${name} PUBLIC ${PROJECT_SOURCE_DIR}/src)
  target_link_libraries(expert_${name} PUBLIC ${room_LINKS} PRIVATE ${room_PRIVATE_LINKS})
  expert_warnings(expert_${name})
  set_property(GLOBAL APPEND PROPERTY EXPERT_ROOMS expert_${name})
endfunction()

# expert_test_program(<name> SOURCES a.cpp … LINKS <targets>): one doctest program. HEAVY: it computes what it compares with,
# and is optimised.
function(expert_test_program name)
  cmake_parse_arguments(test "HEAVY" "" "SOURCES;LINKS" ${ARGN})
  add_executable(${name} ${test_SOURCES})
  target_link_libraries(${name} PRIVATE ${test_LINKS} expert_doctest)
  target_compile_definitions(${name} PRIVATE EXPERT_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
  if(EXPERT_SANITIZE)
    target_compile_definitions(${name} PRIVATE EXPERT_SANITIZED)
  endif()
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR}/tests ${PROJECT_SOURCE_DIR})
  expert_warnings(${name})
  if(test_HEAVY)
    target_compile_options(${name} PRIVATE $<$<NOT:$<CONFIG:Debug>>:-O1>)
  else()
    target_precompile_headers(${name} REUSE_FROM expert_doctest)
  endif()
endfunction()

# expert_test(<name> [HEAVY] SOURCES a.cpp … LINKS <targets> LABELS l): a program that is one ctest entry.
function(expert_test name)
  cmake_parse_arguments(test "HEAVY" "" "SOURCES;LINKS;LABELS" ${ARGN})
  set(heavy)
  if(test_HEAVY)
    set(heavy HEAVY)
  endif()
  expert_test_program(${name} ${heavy} SOURCES ${test_SOURCES} LINKS ${test_LINKS})
  add_test(NAME ${name} COMMAND ${name})
  if(test_LABELS)
    set_tests_properties(${name} PROPERTIES LABELS "${test_LABELS}")
  endif()
endfunction()

# expert_test_parts(<room> PARTS a b … LINKS <targets>): one program of a_test.cpp, b_test.cpp …, because their headers take the
# compiler longer than they do; a ctest entry <room>_a_test for each.
function(expert_test_parts room)
  cmake_parse_arguments(test "" "" "PARTS;LINKS" ${ARGN})
  list(TRANSFORM test_PARTS APPEND _test.cpp OUTPUT_VARIABLE sources)
  expert_test_program(${room}_tests SOURCES ${sources} LINKS ${test_LINKS})
  set_target_properties(${room}_tests PROPERTIES UNITY_BUILD_BATCH_SIZE 6)  # or one core would wait for it
  foreach(part IN LISTS test_PARTS)
    add_test(NAME ${room}_${part}_test COMMAND ${room}_tests "--source-file=*/${part}_test.cpp")
    set_tests_properties(${room}_${part}_test PROPERTIES FAIL_REGULAR_EXPRESSION "test cases: +0 ")  # a name that finds nothing
  endforeach()
endfunction()

# expert_oracle_tool(<name> SOURCE x.cpp LINKS <targets>): a program that the Python tests ask; they run on builds without
# sanitizers.
function(expert_oracle_tool name)
  cmake_parse_arguments(tool "" "SOURCE" "LINKS" ${ARGN})
  if(EXPERT_SANITIZE)
    return()
  endif()
  add_executable(${name} ${tool_SOURCE})
  target_link_libraries(${name} PRIVATE ${tool_LINKS})
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR}/tests)
  expert_warnings(${name})
endfunction()

# expert_fuzzer(<name> SOURCE fuzz_x.cpp LINKS <targets>): one libFuzzer program (clang, EXPERT_FUZZ=ON).
function(expert_fuzzer name)
  cmake_parse_arguments(fuzz "" "SOURCE" "LINKS" ${ARGN})
  add_executable(${name} ${fuzz_SOURCE})
  target_link_libraries(${name} PRIVATE ${fuzz_LINKS})
  target_compile_options(${name} PRIVATE -fsanitize=fuzzer,address,undefined)
  target_link_options(${name} PRIVATE -fsanitize=fuzzer,address,undefined)
endfunction()
