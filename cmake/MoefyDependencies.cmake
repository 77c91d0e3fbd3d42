# Everything comes from the system (launch/setup); nothing is downloaded here.
find_package(Threads REQUIRED)
find_package(MPI REQUIRED COMPONENTS C)
find_package(HDF5 REQUIRED COMPONENTS C)
find_package(Boost REQUIRED COMPONENTS program_options)
find_package(nlohmann_json REQUIRED)
find_package(fmt REQUIRED)
find_package(spdlog REQUIRED)
find_package(OpenMP REQUIRED COMPONENTS CXX)  # FAISS' own; moefy's threads are its own pool
find_package(faiss CONFIG REQUIRED)

# By name: the system's default BLAS may be another one, and threads are set through OpenBLAS' own call.
find_path(OPENBLAS_INCLUDE_DIR openblas_config.h REQUIRED PATH_SUFFIXES openblas openblas-pthread
  x86_64-linux-gnu/openblas-pthread aarch64-linux-gnu/openblas-pthread)
find_library(OPENBLAS_LIBRARY openblas REQUIRED)
find_path(LAPACKE_INCLUDE_DIR lapacke.h REQUIRED)
find_library(LAPACKE_LIBRARY lapacke REQUIRED)
add_library(moefy_blas INTERFACE)
target_include_directories(moefy_blas SYSTEM INTERFACE ${OPENBLAS_INCLUDE_DIR} ${LAPACKE_INCLUDE_DIR})
target_link_libraries(moefy_blas INTERFACE ${LAPACKE_LIBRARY} ${OPENBLAS_LIBRARY})

# Only `split --method coactivation` needs it.
find_path(METIS_INCLUDE_DIR metis.h)
find_library(METIS_LIBRARY metis)
add_library(moefy_metis INTERFACE)
if(NOT MOEFY_METIS MATCHES "^(AUTO|ON|OFF)$")
  message(FATAL_ERROR "MOEFY_METIS is '${MOEFY_METIS}'; valid: AUTO, ON, OFF")
elseif(MOEFY_METIS STREQUAL "ON" AND NOT (METIS_INCLUDE_DIR AND METIS_LIBRARY))
  message(FATAL_ERROR "MOEFY_METIS is ON, but there is no METIS (Debian: libmetis-dev)")
elseif(NOT MOEFY_METIS STREQUAL "OFF" AND METIS_INCLUDE_DIR AND METIS_LIBRARY)
  set(MOEFY_METIS_FOUND ${METIS_LIBRARY})
  target_include_directories(moefy_metis SYSTEM INTERFACE ${METIS_INCLUDE_DIR})
  target_link_libraries(moefy_metis INTERFACE ${METIS_LIBRARY})
  target_compile_definitions(moefy_metis INTERFACE MOEFY_METIS=1)
endif()

find_path(XXHASH_INCLUDE_DIR xxhash.h REQUIRED)
find_library(XXHASH_LIBRARY xxhash REQUIRED)
add_library(moefy_xxhash INTERFACE)
target_include_directories(moefy_xxhash SYSTEM INTERFACE ${XXHASH_INCLUDE_DIR})
target_link_libraries(moefy_xxhash INTERFACE ${XXHASH_LIBRARY})

if(MOEFY_CUDA STREQUAL "ON")
  enable_language(CUDA)
  find_package(CUDAToolkit REQUIRED)
elseif(NOT MOEFY_CUDA MATCHES "^(OFF|SIMULATED)$")
  message(FATAL_ERROR "MOEFY_CUDA is '${MOEFY_CUDA}'; valid: OFF, ON, SIMULATED")
endif()

if(MOEFY_TESTS)
  find_package(GTest REQUIRED)
endif()
find_package(LEMON QUIET CONFIG NAMES lemon LEMON)  # only tests and bench compare with its network simplex
