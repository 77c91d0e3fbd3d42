#include "moefy/convert/expert_width.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "conversion.hpp"
#include "moefy/core/error.hpp"

namespace moefy::test {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

/// What is said against `neurons` neurons in two experts of a Llama; empty: nothing.
std::string refusal(std::int64_t neurons, DType dtype, const ConvertConfig& config) {
  const Conversion conversion(tiny_model("llama", {2, 16, neurons, dtype, 1}), {2, 0, 2, -1, 1});
  try {
    require_runnable_width(*conversion.plan(config));
  } catch (const UsageError& error) {
    return error.what();
  }
  return "";
}

TEST(ExpertWidthTest, rows_of_stock_hosts_are_a_multiple_of_16_bytes) {
  for (const char* host : {"qwen2-moe", "mixtral", "glm4-moe", "solar-open", "granitemoe",
                           "granitemoeshared", "auto"}) {
    SCOPED_TRACE(host);
    EXPECT_THAT(refusal(22, DType::f32, {.host = host, .align = 1}),
                AllOf(HasSubstr("11 neurons wide"), HasSubstr("44 bytes")));
    EXPECT_EQ(refusal(22, DType::f32, {.host = host}), "");
    EXPECT_EQ(refusal(24, DType::f32, {.host = host, .align = 1}), "");
    EXPECT_NE(refusal(24, DType::bf16, {.host = host, .align = 1}), "");
    EXPECT_EQ(refusal(32, DType::f16, {.host = host, .align = 1}), "");
  }
}

TEST(ExpertWidthTest, the_smallest_alignment_that_works_is_named) {
  // Widths by alignment 1, 2, 3 …: 11, 12 in f32; 11, 12, 12, 12, 15, 12, 14, 16 in bf16.
  EXPECT_THAT(refusal(22, DType::f32, {.align = 1}), HasSubstr("that works is 2"));
  EXPECT_THAT(refusal(22, DType::bf16, {.align = 1}), HasSubstr("that works is 8"));
  EXPECT_EQ(refusal(22, DType::f32, {.align = 2}), "");
  EXPECT_EQ(refusal(22, DType::bf16, {.align = 8}), "");
}

TEST(ExpertWidthTest, other_classes_may_have_any_width) {
  EXPECT_EQ(refusal(22, DType::f32, {.host = "llama-moe", .align = 1}), "");
  EXPECT_EQ(refusal(22, DType::f32, {.host = "dense", .align = 1}), "");
}

}  // namespace
}  // namespace moefy::test
