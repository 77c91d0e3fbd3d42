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
