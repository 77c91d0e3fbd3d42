#include "moefy/partition/layer_result.hpp"

#include <gtest/gtest.h>

#include "moefy/core/error.hpp"

namespace moefy {
namespace {

TEST(StopReasonTest, comes_back_from_its_name) {
  for (const auto reason :
       {StopReason::fixpoint, StopReason::rounding, StopReason::cap, StopReason::not_clustered}) {
    EXPECT_EQ(stop_reason_from(to_string(reason)), reason);
  }
}

TEST(StopReasonTest, refuses_unknown_names_and_values) {
  EXPECT_THROW(stop_reason_from("tired"), InputError);
  EXPECT_THROW(to_string(static_cast<StopReason>(99)), InternalError);
}

}  // namespace
}  // namespace moefy
