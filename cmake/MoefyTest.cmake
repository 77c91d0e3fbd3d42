# moefy_test_module(NAME): tests/NAME/*_test.cpp as one program and one ctest entry (label unit), and
# tests/NAME/mpi/*_test.cpp as one program run on 1, 2 and 3 ranks (label mpi). Extra sources and
# libraries of a module stand in tests/NAME/CMakeLists.txt, which sees the targets test_NAME and
# test_NAME_mpi. Results go to test-results/*.xml, from which launch/test counts the cases.
function(moefy_test_module name)
  set(folder ${CMAKE_CURRENT_SOURCE_DIR}/${name})
  file(GLOB sources CONFIGURE_DEPENDS ${folder}/*_test.cpp)
  file(GLOB mpi_sources CONFIGURE_DEPENDS ${folder}/mpi/*_test.cpp)
  if(sources)
    add_executable(test_${name} ${sources})
    target_link_libraries(test_${name} PRIVATE moefy_test_support moefy_${name} GTest::gtest_main)
    add_test(NAME ${name} COMMAND test_${name}
             --gtest_output=xml:${CMAKE_BINARY_DIR}/test-results/${name}.xml)
    set_tests_properties(${name} PROPERTIES LABELS unit TIMEOUT 1800)
    if(MOEFY_CUDA STREQUAL "SIMULATED" AND name MATCHES "^(kernels|balance|simt|jobs)$")
      set_tests_properties(${name} PROPERTIES ENVIRONMENT MOEFY_SIMULATED_DEVICES=1)
    endif()
  endif()
  if(mpi_sources)
    add_executable(test_${name}_mpi ${mpi_sources})
    target_link_libraries(test_${name}_mpi PRIVATE moefy_test_mpi_main moefy_${name} MPI::MPI_C)
    foreach(ranks 1 2 3)
      add_test(NAME ${name}_mpi_${ranks}
        COMMAND ${CMAKE_SOURCE_DIR}/launch/mpirun --timeout 60 -np ${ranks}
                $<TARGET_FILE:test_${name}_mpi>
                --gtest_output=xml:${CMAKE_BINARY_DIR}/test-results/${name}_mpi_${ranks}.xml)
      set_tests_properties(${name}_mpi_${ranks} PROPERTIES LABELS mpi TIMEOUT 120 PROCESSORS 2)
      if(name STREQUAL "simt")
        set_tests_properties(${name}_mpi_${ranks} PROPERTIES
          ENVIRONMENT MOEFY_NCCL=$<TARGET_FILE:moefy_simt_nccl>)
      endif()
    endforeach()
  endif()
  if(EXISTS ${folder}/CMakeLists.txt)
    add_subdirectory(${folder})
  endif()
endfunction()
