// moefy loads NCCL at run time and says itself what its functions take. Here that stands beside
// NCCL's own header, where there is one.
#include <gtest/gtest.h>

#if __has_include(<nccl.h>) && __has_include(<cuda_runtime_api.h>)

#include <nccl.h>

#include "comm/nccl_library.hpp"
#include "support/signature.hpp"

namespace moefy::nccl {
namespace {

using test::signature;

TEST(NcclInterfaceTest, has_the_functions_of_the_header) {
  EXPECT_EQ(signature<decltype(Library::get_version)>(), signature<decltype(ncclGetVersion)>());
  EXPECT_EQ(signature<decltype(Library::get_unique_id)>(), signature<decltype(ncclGetUniqueId)>());
  EXPECT_EQ(signature<decltype(Library::comm_init_rank_config)>(),
            signature<decltype(ncclCommInitRankConfig)>());
  EXPECT_EQ(signature<decltype(Library::comm_get_async_error)>(),
            signature<decltype(ncclCommGetAsyncError)>());
  EXPECT_EQ(signature<decltype(Library::comm_finalize)>(), signature<decltype(ncclCommFinalize)>());
  EXPECT_EQ(signature<decltype(Library::comm_destroy)>(), signature<decltype(ncclCommDestroy)>());
  EXPECT_EQ(signature<decltype(Library::comm_abort)>(), signature<decltype(ncclCommAbort)>());
  EXPECT_EQ(signature<decltype(Library::send)>(), signature<decltype(ncclSend)>());
  EXPECT_EQ(signature<decltype(Library::recv)>(), signature<decltype(ncclRecv)>());
  EXPECT_EQ(signature<decltype(Library::reduce)>(), signature<decltype(ncclReduce)>());
  EXPECT_EQ(signature<decltype(Library::get_error_string)>(),
            signature<decltype(ncclGetErrorString)>());
  EXPECT_EQ(signature<decltype(Library::get_last_error)>(),
            signature<decltype(ncclGetLastError)>());
}

TEST(NcclInterfaceTest, has_the_values_of_the_header) {
  EXPECT_EQ(int{success}, int{ncclSuccess});
  EXPECT_EQ(int{unhandled_cuda_error}, int{ncclUnhandledCudaError});
  EXPECT_EQ(int{in_progress}, int{ncclInProgress});
  EXPECT_EQ(kBytes, int{ncclInt8});
  EXPECT_EQ(kInt64, int{ncclInt64});
  EXPECT_EQ(kSum, int{ncclSum});
  EXPECT_EQ(sizeof(UniqueId), sizeof(ncclUniqueId));
}

TEST(NcclInterfaceTest, has_the_beginning_of_the_configuration) {
  const ncclConfig_t theirs = NCCL_CONFIG_INITIALIZER;
  const Config ours;
  EXPECT_EQ(ours.magic, theirs.magic);
  EXPECT_LE(ours.version, theirs.version);
  EXPECT_EQ(offsetof(Config, magic), offsetof(ncclConfig_t, magic));
  EXPECT_EQ(offsetof(Config, version), offsetof(ncclConfig_t, version));
  EXPECT_EQ(offsetof(Config, blocking), offsetof(ncclConfig_t, blocking));
}

}  // namespace
}  // namespace moefy::nccl

#else

TEST(NcclInterfaceTest, has_the_functions_and_values_of_the_header) {
  GTEST_SKIP() << "nccl.h is not where this build looks";
}

#endif
