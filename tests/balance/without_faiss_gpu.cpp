#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "moefy/balance/start_method.hpp"

namespace moefy {
namespace {

TEST(WithoutFaissGpuTest, says_what_is_missing_and_how_to_get_it) {
  const std::string answer = faiss_gpu_obstacle();

  EXPECT_THAT(answer, testing::HasSubstr("--init faiss-gpu"));
  EXPECT_THAT(answer, testing::HasSubstr("built without FAISS on the GPU"));
  EXPECT_THAT(answer, testing::HasSubstr("-DMOEFY_FAISS_GPU=ON"));
}

}  // namespace
}  // namespace moefy
