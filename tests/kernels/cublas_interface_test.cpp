// moefy loads cuBLAS at run time and says itself what its functions take. Here that stands beside
// cuBLAS' own header, where there is one.
#include <gtest/gtest.h>

#if __has_include(<cublas_v2.h>) && __has_include(<cuda_runtime_api.h>)

#include <cublas_v2.h>

#include "cuda/cublas_library.hpp"
#include "support/signature.hpp"

namespace moefy::cublas {
namespace {

using test::signature;

TEST(CublasInterfaceTest, has_the_functions_of_the_header) {
  using Gemm =
      cublasStatus_t(cublasHandle_t, cublasOperation_t, cublasOperation_t, int, int, int,
                     const void*, const void*, cudaDataType, int, const void*, cudaDataType, int,
                     const void*, void*, cudaDataType, int, cublasComputeType_t, cublasGemmAlgo_t);
  EXPECT_EQ(signature<decltype(Library::create)>(), signature<decltype(cublasCreate_v2)>());
  EXPECT_EQ(signature<decltype(Library::destroy)>(), signature<decltype(cublasDestroy_v2)>());
  EXPECT_EQ(signature<decltype(Library::set_stream)>(), signature<decltype(cublasSetStream_v2)>());
  EXPECT_EQ(signature<decltype(Library::set_workspace)>(),
            signature<decltype(cublasSetWorkspace_v2)>());
  EXPECT_EQ(signature<decltype(Library::gemm)>(),
            signature<decltype(static_cast<Gemm*>(&cublasGemmEx))>());
  EXPECT_EQ(signature<decltype(Library::status_string)>(),
            signature<decltype(cublasGetStatusString)>());
}

TEST(CublasInterfaceTest, has_the_values_of_the_header) {
  EXPECT_EQ(int{success}, int{CUBLAS_STATUS_SUCCESS});
  EXPECT_EQ(int{not_supported}, int{CUBLAS_STATUS_NOT_SUPPORTED});
  EXPECT_EQ(int{as_it_is}, int{CUBLAS_OP_N});
  EXPECT_EQ(int{transposed}, int{CUBLAS_OP_T});
  EXPECT_EQ(int{float32}, int{CUDA_R_32F});
  EXPECT_EQ(int{int8}, int{CUDA_R_8I});
  EXPECT_EQ(int{int32}, int{CUDA_R_32I});
  EXPECT_EQ(int{fp32_pedantic}, int{CUBLAS_COMPUTE_32F_PEDANTIC});
  EXPECT_EQ(int{int32_sums}, int{CUBLAS_COMPUTE_32I});
  EXPECT_EQ(kDefaultAlgorithm, int{CUBLAS_GEMM_DEFAULT});
}

}  // namespace
}  // namespace moefy::cublas

#else

TEST(CublasInterfaceTest, has_the_functions_and_values_of_the_header) {
  GTEST_SKIP() << "cublas_v2.h is not where this build looks";
}

#endif
