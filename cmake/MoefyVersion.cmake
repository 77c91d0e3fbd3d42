find_package(Git QUIET)
set(MOEFY_GIT_HASH "unknown")
if(GIT_FOUND)
  execute_process(COMMAND ${GIT_EXECUTABLE} -C ${CMAKE_SOURCE_DIR} rev-parse --short=12 HEAD
                  OUTPUT_VARIABLE MOEFY_GIT_HASH OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET
                  RESULT_VARIABLE git_failed)
  if(git_failed)
    set(MOEFY_GIT_HASH "unknown")
  endif()
endif()
file(CONFIGURE OUTPUT ${CMAKE_BINARY_DIR}/generated/moefy_build_info.hpp @ONLY CONTENT
"#pragma once
#define MOEFY_VERSION \"@PROJECT_VERSION@\"
#define MOEFY_GIT_HASH \"@MOEFY_GIT_HASH@\"
#define MOEFY_COMPILER \"@CMAKE_CXX_COMPILER_ID@ @CMAKE_CXX_COMPILER_VERSION@\"
#define MOEFY_BUILD_TYPE \"@CMAKE_BUILD_TYPE@\"
")
