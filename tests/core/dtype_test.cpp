#include "moefy/core/dtype.hpp"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "moefy/core/error.hpp"

namespace moefy {
namespace {

TEST(HalfTest, widens_hand_computed_values) {
  EXPECT_EQ(half_to_float(0x3c00), 1.0f);
  EXPECT_EQ(half_to_float(0xc000), -2.0f);
  EXPECT_EQ(half_to_float(0x7bff), 65504.0f);
  EXPECT_EQ(half_to_float(0x0001), 0x1p-24f);  // smallest subnormal
  EXPECT_EQ(half_to_float(0x03ff), 1023 * 0x1p-24f);
  EXPECT_TRUE(std::signbit(half_to_float(0x8000)));
  EXPECT_TRUE(std::isinf(half_to_float(0x7c00)));
  EXPECT_TRUE(std::isnan(half_to_float(0x7e00)));
}

TEST(HalfTest, every_value_survives_the_way_there_and_back) {
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float value = half_to_float(static_cast<std::uint16_t>(bits));
    if (std::isnan(value)) continue;
    ASSERT_EQ(float_to_half(value), bits) << "bits " << bits;
  }
}

TEST(HalfTest, rounds_to_nearest_even) {
  EXPECT_EQ(float_to_half(1.0f + 0x1p-11f), 0x3c00);      // tie, down to even
  EXPECT_EQ(float_to_half(1.0f + 3 * 0x1p-11f), 0x3c02);  // tie, up to even
  EXPECT_EQ(float_to_half(65519.0f), 0x7bff);
  EXPECT_EQ(float_to_half(65520.0f), 0x7c00);  // halfway to 65536: infinity
  EXPECT_EQ(float_to_half(0x1p-25f), 0x0000);  // tie with zero
  EXPECT_EQ(float_to_half(std::nextafter(0x1p-25f, 1.0f)), 0x0001);
}

TEST(Bfloat16Test, rounds_to_nearest_even_and_keeps_nan) {
  EXPECT_EQ(float_to_bfloat16(1.0f), 0x3f80);
  EXPECT_EQ(float_to_bfloat16(1.0f + 0x1p-8f), 0x3f80);      // tie, down to even
  EXPECT_EQ(float_to_bfloat16(1.0f + 3 * 0x1p-8f), 0x3f82);  // tie, up to even
  EXPECT_TRUE(
      std::isnan(bfloat16_to_float(float_to_bfloat16(std::numeric_limits<float>::quiet_NaN()))));
  EXPECT_EQ(bfloat16_to_float(0xc040), -3.0f);
}

TEST(DTypeTest, knows_its_names_both_ways) {
  EXPECT_EQ(dtype_from_name("BF16"), DType::bf16);
  EXPECT_EQ(name_of(DType::f8_e4m3), "F8_E4M3");
  EXPECT_EQ(size_of(DType::i64), 8u);
  EXPECT_FALSE(dtype_from_name("bf16").has_value());
}

TEST(WidenTest, refuses_types_that_are_not_computed_with) {
  const std::array<std::byte, 4> raw{};
  std::array<float, 4> out{};

  EXPECT_THROW(widen(DType::i8, raw, out), InternalError);
}

TEST(NonFiniteTest, names_the_first_place) {
  std::vector<float> values(10'000, 1.0f);
  EXPECT_FALSE(first_non_finite(values).has_value());

  values[9'000] = std::numeric_limits<float>::infinity();
  values[5'000] = std::numeric_limits<float>::quiet_NaN();

  EXPECT_EQ(first_non_finite(values), 5'000u);
}

}  // namespace
}  // namespace moefy
