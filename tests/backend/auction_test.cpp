#include "moefy/backend/auction.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "moefy/backend/backend.hpp"
#include "moefy/core/random.hpp"

namespace moefy {
namespace {

using Prices = std::vector<std::int32_t>;
using Sizes = std::vector<std::int64_t>;

/// Costs as a CostView has them.
struct Instance {
  explicit Instance(const std::vector<std::vector<std::int32_t>>& table)
      : num_rows(table.size()), num_sites(table[0].size()) {
    stride = (num_sites + kSiteAlignment - 1) / kSiteAlignment * kSiteAlignment;
    values.resize(num_rows * stride);
    std::fill_n(values.data(), values.size(), 0);
    for (std::size_t i = 0; i < num_rows; ++i) {
      std::ranges::copy(table[i], values.data() + i * stride);
    }
  }
  HostCosts<std::int32_t> costs() const { return {values.data(), num_rows, num_sites, stride}; }
  std::size_t num_rows, num_sites, stride;
  AlignedBuffer<std::int32_t> values;
};

struct Phase {
  AuctionResult result;
  Prices prices;
};

Phase run(const Instance& instance, const Sizes& size, const AuctionLimits& limits, Prices prices,
          std::size_t num_threads = 1) {
  ThreadPool threads(num_threads);
  AuctionPhase phase;
  Phase found;
  found.result = phase.run(instance.costs(), threads, size, limits, prices);
  found.prices = prices;
  return found;
}

/// The definition once more, without regard to time or range.
Phase run_plainly(const Instance& instance, const Sizes& size, const AuctionLimits& limits,
                  const Prices& start) {
  const std::size_t num_sites = instance.num_sites;
  const auto fit = [](std::vector<std::int64_t>& prices) {
    const std::int64_t least = std::ranges::min(prices);
    for (std::int64_t& price : prices) price = std::min<std::int64_t>(price - least, kMaxCost);
  };
  std::vector<std::int64_t> prices(start.begin(), start.end());
  fit(prices);
  // The order in which a site prefers bids: (-bid, row).
  std::vector<std::vector<std::pair<std::int64_t, std::size_t>>> kept(num_sites);
  std::vector<std::size_t> waiting(instance.num_rows);
  std::iota(waiting.begin(), waiting.end(), std::size_t{0});
  Phase phase;
  while (std::ssize(waiting) > limits.enough && phase.result.rounds < limits.max_rounds &&
         phase.result.bids < limits.max_bids) {
    ++phase.result.rounds;
    phase.result.bids += std::ssize(waiting);
    for (const std::size_t i : waiting) {
      std::vector<std::pair<std::int64_t, std::size_t>> value;
      for (std::size_t j = 0; j < num_sites; ++j) {
        value.emplace_back(instance.costs().row(i)[j] + prices[j], j);
      }
      std::ranges::sort(value);
      const std::size_t site = value[0].second;
      kept[site].emplace_back(-(prices[site] + value[1].first - value[0].first + limits.epsilon),
                              i);
    }
    waiting.clear();
    for (std::size_t j = 0; j < num_sites; ++j) {
      std::ranges::sort(kept[j]);
      while (std::ssize(kept[j]) > size[j]) {
        waiting.push_back(kept[j].back().second);
        kept[j].pop_back();
      }
      if (std::ssize(kept[j]) == size[j]) prices[j] = -kept[j].back().first;
    }
  }
  phase.result.unassigned = std::ssize(waiting);
  fit(prices);
  phase.prices.assign(prices.begin(), prices.end());
  return phase;
}

// Points 0, 1, 2, 3, 10, 11 and centres 1, 10. All four left points bid for site 0: 100, 82, 64 and
// 46, of which it keeps three; the one at 3 then sees 4 + 64 there and pays 20 for the last place
// of the other.
TEST(AuctionTest, raises_the_price_until_the_cheapest_point_leaves) {
  const Instance line({{1, 100}, {0, 81}, {1, 64}, {4, 49}, {81, 0}, {100, 1}});

  const Phase phase = run(line, {3, 3}, {}, {0, 0});

  EXPECT_EQ(phase.prices, (Prices{44, 0}));  // 64 and 20; the optimum begins at 45
  EXPECT_EQ(phase.result.rounds, 2);
  EXPECT_EQ(phase.result.bids, 7);
  EXPECT_EQ(phase.result.unassigned, 0);
}

TEST(AuctionTest, gives_equal_rows_one_site_after_the_other) {
  const Instance zeros(std::vector<std::vector<std::int32_t>>(6, {0, 0, 0}));

  const Phase phase = run(zeros, {2, 2, 2}, {}, {0, 0, 0});

  EXPECT_EQ(phase.prices, (Prices{0, 0, 1}));  // 1, 1 and 2
  EXPECT_EQ(phase.result.rounds, 3);
  EXPECT_EQ(phase.result.bids, 6 + 4 + 2);
}

// Rows 0 and 1 bid 6 for site 0. Row 0 keeps it, so row 1 bids 21 at once; the other way round, row
// 0 would bid 10 in between, a fourth round.
TEST(AuctionTest, prefers_the_lower_of_equal_bidders) {
  const Instance instance({{0, 5, 9}, {0, 5, 20}, {50, 0, 50}});

  const Phase phase = run(instance, {1, 1, 1}, {}, {0, 0, 0});

  EXPECT_EQ(phase.prices, (Prices{8, 38, 0}));  // 21, 51 and 13
  EXPECT_EQ(phase.result.rounds, 3);
  EXPECT_EQ(phase.result.bids, 5);
}

TEST(AuctionTest, ends_when_its_limits_are_reached) {
  const Instance zeros(std::vector<std::vector<std::int32_t>>(6, {0, 0, 0}));
  AuctionLimits enough;
  enough.enough = 2;
  AuctionLimits rounds;
  rounds.max_rounds = 1;
  AuctionLimits bids;
  bids.max_bids = 7;

  EXPECT_EQ(run(zeros, {2, 2, 2}, enough, {0, 0, 0}).result.unassigned, 2);
  EXPECT_EQ(run(zeros, {2, 2, 2}, rounds, {0, 0, 0}).result.unassigned, 4);
  EXPECT_EQ(run(zeros, {2, 2, 2}, bids, {0, 0, 0}).result.unassigned, 2);
  EXPECT_EQ(run(zeros, {2, 2, 2}, bids, {0, 0, 0}).prices, (Prices{1, 1, 0}));
}

TEST(AuctionTest, fits_prices_to_what_they_tell) {
  Prices prices{INT32_MIN, 7, INT32_MAX, INT32_MIN + 5};

  fit_auction_prices(prices);

  EXPECT_EQ(prices, (Prices{0, kMaxCost, kMaxCost, 5}));
}

// Few values make ties; costs, prices and epsilon are also as large as they may be.
TEST(AuctionTest, does_what_its_definition_says) {
  for (std::uint64_t seed = 0; seed < 120; ++seed) {
    SCOPED_TRACE(seed);
    RandomStream random(seed, 0, RandomPurpose::verification);
    const std::size_t num_sites = 2 + random.next_below(40);
    Sizes size(num_sites);
    std::size_t num_rows = 0;
    for (std::int64_t& places : size) {
      places = 1 + static_cast<std::int64_t>(random.next_below(seed % 7 + 1));
      num_rows += static_cast<std::size_t>(places);
    }
    const std::uint64_t num_values = seed % 3 == 0 ? 4 : seed % 3 == 1 ? 2 : 1 << 20;
    const std::int32_t step = seed % 3 == 1 ? kMaxCost : 1;
    std::vector<std::vector<std::int32_t>> table(num_rows, std::vector<std::int32_t>(num_sites));
    for (auto& row : table) {
      for (std::int32_t& cost : row) {
        cost = static_cast<std::int32_t>(random.next_below(num_values)) * step;
      }
    }
    Prices start(num_sites, 0);
    for (std::int32_t& price : start) {
      if (seed % 2 == 0) price = static_cast<std::int32_t>(random.next_below(3) - 1) * INT32_MAX;
    }
    AuctionLimits limits;
    limits.epsilon = seed % 4 == 0 ? kMaxCost : seed % 4 == 1 ? 1 : 1 << 14;
    limits.enough = static_cast<std::int64_t>(seed % 5 == 0 ? num_sites / 8 : 0);
    limits.max_rounds = 400;
    const Instance instance(table);

    const Phase expected = run_plainly(instance, size, limits, start);
    for (const std::size_t num_threads : {1, 3}) {
      const Phase found = run(instance, size, limits, start, num_threads);
      ASSERT_EQ(found.prices, expected.prices);
      ASSERT_EQ(found.result.rounds, expected.result.rounds);
      ASSERT_EQ(found.result.bids, expected.result.bids);
      ASSERT_EQ(found.result.unassigned, expected.result.unassigned);
    }
  }
}

}  // namespace
}  // namespace moefy
