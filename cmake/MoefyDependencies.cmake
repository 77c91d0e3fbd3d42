# Everything comes from the system (launch/setup); nothing is downloaded here.
include(CheckSourceCompiles)

# RESULT: whether a program of this C source links with these libraries.
function(moefy_check_links result source libraries includes)
  set(CMAKE_REQUIRED_LIBRARIES ${libraries})
  set(CMAKE_REQUIRED_INCLUDES ${includes})
  check_source_compiles(C "${source}" ${result})
endfunction()

find_package(Threads REQUIRED)
find_package(MPI REQUIRED COMPONENTS C)
find_package(HDF5 REQUIRED COMPONENTS C)
set(Boost_USE_STATIC_LIBS ON)
find_package(Boost REQUIRED COMPONENTS program_options)
find_package(nlohmann_json REQUIRED)
find_package(fmt REQUIRED)
find_package(spdlog REQUIRED)
find_package(OpenMP REQUIRED COMPONENTS CXX)  # FAISS' own; moefy's threads are its own pool

if(MOEFY_CUDA STREQUAL "ON")
  enable_language(CUDA)
  find_package(CUDAToolkit REQUIRED)
  set(moefy_cuda_architectures ${MOEFY_CUDA_ARCHITECTURES})
  if(NOT moefy_cuda_architectures)
    set(moefy_cuda_architectures 80 90)
    if(CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL 12.8)
      list(APPEND moefy_cuda_architectures 100)
    endif()
  endif()
elseif(NOT MOEFY_CUDA MATCHES "^(OFF|SIMULATED)$")
  message(FATAL_ERROR "MOEFY_CUDA is '${MOEFY_CUDA}'; valid: OFF, ON, SIMULATED")
endif()

# With GPU indexes, a static FAISS names CUDA's targets.
find_package(faiss CONFIG REQUIRED)

# By name: the system's default BLAS may be another one, and threads are set through OpenBLAS' own call.
find_path(OPENBLAS_INCLUDE_DIR openblas_config.h REQUIRED PATH_SUFFIXES openblas openblas-pthread
  x86_64-linux-gnu/openblas-pthread aarch64-linux-gnu/openblas-pthread)
find_library(OPENBLAS_LIBRARY openblas REQUIRED)
find_path(LAPACKE_INCLUDE_DIR lapacke.h REQUIRED)  # declares OpenBLAS' LAPACK functions
add_library(moefy_blas INTERFACE)
target_include_directories(moefy_blas SYSTEM INTERFACE ${OPENBLAS_INCLUDE_DIR} ${LAPACKE_INCLUDE_DIR})
# To load the shared one takes half the start of the program, so that alone has 25 MB of its own. Tests would
# grow for nothing, and the extension module shares the OpenBLAS of its Python process.
get_filename_component(openblas_folder ${OPENBLAS_LIBRARY} DIRECTORY)
find_library(OPENBLAS_STATIC_LIBRARY libopenblas.a HINTS ${openblas_folder} NO_DEFAULT_PATH)
set(openblas_static ${OPENBLAS_STATIC_LIBRARY} gfortran m Threads::Threads)
moefy_check_links(OPENBLAS_STATIC_LINKS "void dpotrf_(void);\nint main(void) { dpotrf_(); }"
  "${openblas_static}" "")
if(OPENBLAS_STATIC_LIBRARY AND OPENBLAS_STATIC_LINKS)
  target_link_libraries(moefy_blas INTERFACE
    "$<IF:$<STREQUAL:$<TARGET_PROPERTY:NAME>,moefy>,${openblas_static},${OPENBLAS_LIBRARY}>")
else()
  target_link_libraries(moefy_blas INTERFACE ${OPENBLAS_LIBRARY})
endif()
# One BLAS a process: FAISS' package names the system's default ones, each with threads of its own.
get_target_property(faiss_libraries faiss INTERFACE_LINK_LIBRARIES)
list(FILTER faiss_libraries EXCLUDE REGEX "(^|[^u])blas|lapack|BLAS|LAPACK")  # but cuBLAS
# And one CUDA runtime, the kernels'.
list(TRANSFORM faiss_libraries REPLACE "CUDA::cudart([^_]|$)" "CUDA::cudart_static\\1")
set_target_properties(faiss PROPERTIES INTERFACE_LINK_LIBRARIES "${faiss_libraries};moefy_blas")

# Only `split --init faiss-gpu` needs it.
add_library(moefy_faiss_gpu INTERFACE)
if(MOEFY_FAISS_GPU)
  if(NOT MOEFY_CUDA STREQUAL "ON")
    message(FATAL_ERROR "MOEFY_FAISS_GPU is ON, and needs MOEFY_CUDA=ON, which is '${MOEFY_CUDA}'")
  endif()
  get_target_property(faiss_folders faiss INTERFACE_INCLUDE_DIRECTORIES)
  find_path(FAISS_GPU_INCLUDE_DIR faiss/gpu/GpuIndexFlat.h PATHS ${faiss_folders} NO_DEFAULT_PATH)
  if(NOT FAISS_GPU_INCLUDE_DIR)
    message(FATAL_ERROR "MOEFY_FAISS_GPU is ON, but the FAISS of ${faiss_DIR} has no GPU indexes; "
                        "launch/build_faiss_gpu makes one that has, and says how to name it")
  endif()
  if(NOT TARGET CUDA::cublas)
    message(FATAL_ERROR "MOEFY_FAISS_GPU is ON, but there is no cuBLAS to link with")
  endif()
  target_compile_definitions(moefy_faiss_gpu INTERFACE MOEFY_FAISS_GPU=1)
  target_link_libraries(moefy_faiss_gpu INTERFACE CUDA::cublas CUDA::cudart_static)
endif()

# Linked statically, HDF5 does not bring the forty libraries of its drivers for remote files: loading
# them is most of the start of a process. Position-independent code needs the shared one.
list(GET HDF5_C_LIBRARIES 0 hdf5_shared)
get_filename_component(hdf5_folder ${hdf5_shared} DIRECTORY)
find_library(HDF5_STATIC_LIBRARY NAMES libhdf5.a libhdf5_serial.a HINTS ${hdf5_folder} NO_DEFAULT_PATH)
set(hdf5_static ${HDF5_C_LIBRARIES})
list(POP_FRONT hdf5_static)
list(PREPEND hdf5_static ${HDF5_STATIC_LIBRARY})
moefy_check_links(HDF5_STATIC_LINKS "#include <hdf5.h>\nint main(void) { return H5open(); }"
  "${hdf5_static}" "${HDF5_C_INCLUDE_DIRS}")
add_library(moefy_hdf5 INTERFACE)
target_include_directories(moefy_hdf5 SYSTEM INTERFACE ${HDF5_C_INCLUDE_DIRS})
if(HDF5_STATIC_LIBRARY AND HDF5_STATIC_LINKS)
  target_link_libraries(moefy_hdf5 INTERFACE
    "$<IF:$<STREQUAL:$<TARGET_PROPERTY:TYPE>,EXECUTABLE>,${hdf5_static},${HDF5_C_LIBRARIES}>")
else()
  target_link_libraries(moefy_hdf5 INTERFACE ${HDF5_C_LIBRARIES})
endif()

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
moefy_check_links(XXHASH_HAS_DISPATCH "#include <xxhash.h>\n#include <xxh_x86dispatch.h>
  int main(void) { return (int)XXH3_128bits(\"\", 0).low64; }" "${XXHASH_LIBRARY}" "${XXHASH_INCLUDE_DIR}")
if(XXHASH_HAS_DISPATCH)
  target_compile_definitions(moefy_xxhash INTERFACE MOEFY_XXHASH_DISPATCH=1)
endif()

if(MOEFY_TESTS)
  find_package(GTest REQUIRED)
endif()
find_package(LEMON QUIET CONFIG NAMES lemon LEMON)  # only tests and bench compare with its network simplex
