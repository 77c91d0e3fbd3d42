if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "Build type" FORCE)
endif()

find_program(MOEFY_CCACHE ccache)
if(MOEFY_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${MOEFY_CCACHE})
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${MOEFY_CCACHE})
endif()

add_library(moefy_options INTERFACE)
target_compile_features(moefy_options INTERFACE cxx_std_20)
set(cxx_options
  -Wall -Wextra -Wconversion -Wshadow -Woverloaded-virtual
  # One rounding everywhere: a contraction that one instruction set makes and another does not would
  # change bits. Kernels that want a fused multiply-add write it.
  -ffp-contract=off
  # g++ 12 sees overlaps in "literal" + std::string that are not there (GCC bug 105651).
  $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict>
  $<$<CXX_COMPILER_ID:Clang>:-Wno-sign-conversion>  # no part of g++'s -Wconversion
  $<$<BOOL:${MOEFY_WERROR}>:-Werror>)
target_compile_options(moefy_options INTERFACE
  "$<$<COMPILE_LANGUAGE:CXX>:${cxx_options}>"
  $<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-Wall>  # nvcc has warnings of its own
  $<$<AND:$<COMPILE_LANGUAGE:CUDA>,$<BOOL:${MOEFY_WERROR}>>:--Werror=all-warnings>)
target_include_directories(moefy_options INTERFACE ${CMAKE_SOURCE_DIR}/include)

if(MOEFY_SANITIZE)
  set(CMAKE_ENABLE_EXPORTS ON)  # sanitizers compare types across libmoefy_mpi.so by address
endif()
if(MOEFY_SANITIZE STREQUAL "address")
  target_compile_options(moefy_options INTERFACE
    -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
    # cuBLAS and NCCL are C libraries loaded by name: their functions have types of their own. Accesses
    # beyond an object are AddressSanitizer's already; looked for twice they cost a fifth of the build.
    $<$<CXX_COMPILER_ID:Clang>:-fno-sanitize=function,object-size>)
  target_compile_definitions(moefy_options INTERFACE _GLIBCXX_ASSERTIONS)
  target_link_options(moefy_options INTERFACE -fsanitize=address,undefined)
elseif(MOEFY_SANITIZE STREQUAL "thread")
  target_compile_options(moefy_options INTERFACE -fsanitize=thread -fno-omit-frame-pointer)
  target_link_options(moefy_options INTERFACE -fsanitize=thread)
elseif(MOEFY_SANITIZE)
  message(FATAL_ERROR "MOEFY_SANITIZE is '${MOEFY_SANITIZE}'; valid: address, thread, or empty")
endif()
