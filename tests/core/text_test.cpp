#include "moefy/core/text.hpp"

#include <gtest/gtest.h>

namespace moefy {
namespace {

TEST(ParseIntegerTest, takes_whole_numbers_only) {
  EXPECT_EQ(parse_integer("42"), 42);
  EXPECT_EQ(parse_integer("-3"), -3);
  for (const char* bad : {"", "4x", "1.0", " 1", "1e3", "99999999999999999999"})
    EXPECT_FALSE(parse_integer(bad).has_value()) << bad;
}

TEST(ParseBytesTest, knows_decimal_and_binary_units) {
  EXPECT_EQ(parse_bytes("5G"), 5'000'000'000u);
  EXPECT_EQ(parse_bytes("1.5KiB"), 1536u);
  EXPECT_EQ(parse_bytes("0"), 0u);
  for (const char* bad : {"", "G", "-1K", "1e400", "1X", "9999999999T"})
    EXPECT_FALSE(parse_bytes(bad).has_value()) << bad;
}

TEST(ParseDurationTest, knows_seconds_minutes_hours) {
  EXPECT_EQ(parse_duration("90"), 90.0);
  EXPECT_EQ(parse_duration("15m"), 900.0);
  EXPECT_EQ(parse_duration("2h"), 7200.0);
  for (const char* bad : {"", "m", "-1s", "1d", "nan"})
    EXPECT_FALSE(parse_duration(bad).has_value()) << bad;
}

TEST(NearestNamesTest, finds_misspelt_names_and_not_others) {
  const std::vector<std::string> names = {"--experts", "--export", "--threads", "--seed"};

  EXPECT_EQ(nearest_names("--expert", names).at(0), "--experts");
  EXPECT_EQ(nearest_names("--sede", names).at(0), "--seed");
  EXPECT_TRUE(nearest_names("--completely-different", names).empty());
}

TEST(SplitTextTest, keeps_empty_pieces) {
  EXPECT_EQ(split_text("a,,b", ','), (std::vector<std::string>{"a", "", "b"}));
  EXPECT_EQ(split_text("", ','), (std::vector<std::string>{""}));
}

}  // namespace
}  // namespace moefy
