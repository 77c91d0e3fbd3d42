#include "moefy/core/random.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <vector>

namespace moefy {
namespace {

TEST(PhiloxTest, gives_the_published_test_vectors) {
  using Words = std::array<std::uint32_t, 4>;
  // Known answers of Random123 for philox4x32-10.
  EXPECT_EQ(philox4x32({0, 0, 0, 0}, {0, 0}),
            (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox4x32({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}),
            (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(RandomStreamTest, depends_on_every_part_of_its_key) {
  const auto first = [](std::uint64_t seed, std::uint64_t layer, RandomPurpose purpose,
                        std::uint32_t restart) {
    return RandomStream(seed, layer, purpose, restart).next_word();
  };
  const std::uint32_t base = first(1, 2, RandomPurpose::initial_rows, 0);

  EXPECT_EQ(first(1, 2, RandomPurpose::initial_rows, 0), base);
  EXPECT_NE(first(2, 2, RandomPurpose::initial_rows, 0), base);
  EXPECT_NE(first(1, 3, RandomPurpose::initial_rows, 0), base);
  EXPECT_NE(first(1, 2, RandomPurpose::random_split, 0), base);
  EXPECT_NE(first(1, 2, RandomPurpose::initial_rows, 1), base);
}

TEST(RandomStreamTest, draws_below_a_bound_reach_every_value_equally) {
  RandomStream stream(0, 0, RandomPurpose::verification);
  std::array<int, 5> count{};

  for (int i = 0; i < 50'000; ++i) ++count[stream.next_below(5)];

  for (const int c : count) EXPECT_NEAR(c, 10'000, 400);  // four standard deviations
}

TEST(RandomStreamTest, normals_have_mean_zero_and_variance_one) {
  RandomStream stream(0, 0, RandomPurpose::verification);
  double sum = 0;
  double squares = 0;
  constexpr int kDraws = 100'000;

  for (int i = 0; i < kDraws; ++i) {
    const double value = stream.next_normal();
    sum += value;
    squares += value * value;
  }

  EXPECT_NEAR(sum / kDraws, 0, 0.015);
  EXPECT_NEAR(squares / kDraws, 1, 0.02);
}

TEST(ShuffleTest, permutes_and_can_be_repeated) {
  std::vector<std::int32_t> first(100);
  std::iota(first.begin(), first.end(), 0);
  std::vector<std::int32_t> second = first;
  RandomStream a(3, 4, RandomPurpose::random_split);
  RandomStream b(3, 4, RandomPurpose::random_split);

  shuffle(first, a);
  shuffle(second, b);

  EXPECT_EQ(first, second);
  EXPECT_FALSE(std::is_sorted(first.begin(), first.end()));
  std::sort(first.begin(), first.end());
  for (std::int32_t i = 0; i < 100; ++i) EXPECT_EQ(first[static_cast<std::size_t>(i)], i);
}

}  // namespace
}  // namespace moefy
