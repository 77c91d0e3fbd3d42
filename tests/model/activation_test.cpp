#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cmath>

#include "moefy/core/error.hpp"
#include "moefy/model/architecture.hpp"

namespace moefy {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::ThrowsMessage;

constexpr std::array kInputs{-3.0F, -0.5F, 0.0F, 0.7F, 2.5F, 8.0F};

/// Values of transformers' ACT2FN at kInputs, computed in double.
struct Expected {
  const char* name;
  std::array<float, kInputs.size()> values;
};

const Expected kExpected[] = {
    {"gelu", {-0.0040496941F, -0.15426877F, 0.0F, 0.53062544F, 2.4844758F, 8.0F}},
    {"gelu_new", {-0.0036373921F, -0.15428599F, 0.0F, 0.53057013F, 2.4849157F, 8.0F}},
    {"gelu_pytorch_tanh", {-0.0036373921F, -0.15428599F, 0.0F, 0.53057013F, 2.4849157F, 8.0F}},
    {"gelu_fast", {-0.0036373921F, -0.15428599F, 0.0F, 0.53057013F, 2.4849157F, 8.0F}},
    {"gelu_accurate", {-0.0036373921F, -0.15428599F, 0.0F, 0.53057013F, 2.4849157F, 8.0F}},
    {"quick_gelu", {-0.01807131F, -0.14961156F, 0.0F, 0.53689395F, 2.4650138F, 7.9999902F}},
    {"relu", {0.0F, 0.0F, 0.0F, 0.7F, 2.5F, 8.0F}},
    {"relu2", {0.0F, 0.0F, 0.0F, 0.49F, 6.25F, 64.0F}},
    {"relu6", {0.0F, 0.0F, 0.0F, 0.7F, 2.5F, 6.0F}},
    {"leaky_relu", {-0.03F, -0.005F, 0.0F, 0.7F, 2.5F, 8.0F}},
    {"silu", {-0.14227762F, -0.18877033F, 0.0F, 0.46773144F, 2.3103545F, 7.9973172F}},
    {"sigmoid", {0.047425873F, 0.37754067F, 0.5F, 0.66818777F, 0.92414182F, 0.99966465F}},
    {"tanh", {-0.99505475F, -0.46211716F, 0.0F, 0.60436778F, 0.9866143F, 0.99999977F}},
    {"mish", {-0.14564746F, -0.22074377F, 0.0F, 0.56114838F, 2.4713923F, 7.9999982F}},
    {"linear", {-3.0F, -0.5F, 0.0F, 0.7F, 2.5F, 8.0F}},
};

TEST(ActivationTest, agrees_with_transformers) {
  for (const auto& [name, expected] : kExpected) {
    SCOPED_TRACE(name);
    ASSERT_TRUE(is_known_activation(name));
    auto values = kInputs;

    apply_activation(activation_named(name), values);

    for (std::size_t i = 0; i < values.size(); ++i)
      EXPECT_NEAR(values[i], expected[i], 2e-6F + 1e-6F * std::abs(expected[i])) << kInputs[i];
  }
}

TEST(ActivationTest, stays_finite_at_large_inputs) {
  for (const auto& [name, unused] : kExpected) {
    SCOPED_TRACE(name);
    std::array values{-1000.0F, 1000.0F};

    apply_activation(activation_named(name), values);

    EXPECT_TRUE(std::isfinite(values[0]));
    EXPECT_TRUE(std::isfinite(values[1]));
  }
}

TEST(ActivationTest, names_near_ones) {
  std::array values{1.0F};

  EXPECT_FALSE(is_known_activation("sillu"));
  EXPECT_THAT([&] { apply_activation(activation_named("sillu"), values); },
              ThrowsMessage<InputError>(AllOf(HasSubstr("'sillu'"), HasSubstr("silu"))));
}

}  // namespace
}  // namespace moefy
