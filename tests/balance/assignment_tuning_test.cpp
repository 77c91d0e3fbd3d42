// Settings that change how the solver works must not change what it finds.
#include <gtest/gtest.h>

#include <algorithm>

#include "assignment_support.hpp"
#include "exact_solver.hpp"
#include "moefy/core/random.hpp"

namespace moefy::test {
namespace {

struct TunedResult {
  std::vector<std::int32_t> label;
  std::vector<std::int32_t> price;
  bool optimal = false;
  SolverStatistics statistics;
};

TunedResult solve_with(const SolverTuning& tuning, const Table& costs, const Capacities& capacities,
                       bool canonical, const std::vector<std::int32_t>& warm = {}) {
  const auto backend = make_cpu_backend(1);
  const CostView q = upload(*backend, costs);
  TunedResult result;
  result.price = warm.empty() ? std::vector<std::int32_t>(q.num_sites, 0) : warm;
  result.label.assign(q.num_rows, -1);
  ExactSolver<std::int32_t> solver(tuning);
  result.statistics =
      solver.solve(BackendCosts(*backend, q), capacities, canonical, result.price, result.label);
  result.optimal = check_certificate(*backend, q, capacities, result.price, result.label).optimal();
  return result;
}

std::vector<Capacities> some_capacities(std::size_t num_rows, std::size_t num_sites) {
  return {Capacities::balanced(num_rows, num_sites),
          Capacities::bounded(std::vector<SizeBounds>(num_sites, {2, num_rows / 5}))};
}

TEST(AssignmentTuningTest, list_length_changes_no_label_and_no_price) {
  for (const std::int64_t largest : {3LL, 40LL, 1LL << 24}) {
    Table costs = random_costs(1200, 23, largest, 11);
    for (auto& row : costs) row[5] /= 2;
    for (const Capacities& capacities : some_capacities(1200, 23)) {
      const TunedResult expected = solve_with({}, costs, capacities, false);
      ASSERT_TRUE(expected.optimal);
      for (const std::size_t length : {1, 2, 3, 50}) {
        SCOPED_TRACE(length);
        SolverTuning tuning;
        tuning.list_length = length;
        const TunedResult result = solve_with(tuning, costs, capacities, false);
        EXPECT_EQ(result.label, expected.label);
        EXPECT_EQ(result.price, expected.price);
      }
    }
  }
}

TEST(AssignmentTuningTest, candidate_lists_are_exact) {
  for (const std::int64_t largest : {3LL, 40LL, 1LL << 24}) {
    for (std::uint64_t seed = 0; seed < 12; ++seed) {
      SCOPED_TRACE(seed);
      const std::size_t num_rows = 150 + 40 * seed;
      Table costs = random_costs(num_rows, 30, largest, seed);
      for (auto& row : costs) row[seed] /= 4;
      for (const Capacities& capacities : some_capacities(num_rows, 30)) {
        const TunedResult expected = solve_with({}, costs, capacities, true);
        for (const std::size_t count : {1, 2, 8}) {
          SolverTuning tuning;
          tuning.max_dense_sites = 4;
          tuning.num_candidates = count;
          const TunedResult result = solve_with(tuning, costs, capacities, true);
          ASSERT_TRUE(result.optimal);
          EXPECT_EQ(result.label, expected.label);
        }
      }
    }
  }
}

TEST(AssignmentTuningTest, candidate_lists_reach_far_deficits) {
  // Everybody's cheap sites are the same few, so the candidates have to be widened again and again.
  Table costs(64, std::vector<std::int64_t>(64));
  for (std::size_t i = 0; i < 64; ++i) {
    for (std::size_t j = 0; j < 64; ++j) costs[i][j] = static_cast<std::int64_t>(j * j + i * j);
  }
  SolverTuning tuning;
  tuning.max_dense_sites = 1;
  tuning.num_candidates = 2;

  const TunedResult result = solve_with(tuning, costs, Capacities::balanced(64, 64), true);

  EXPECT_TRUE(result.optimal);
  EXPECT_EQ(result.label.front(), 63);  // rows in reverse: sum of i * j is least
  EXPECT_EQ(result.label.back(), 0);
}

/// Bids for any number of sites, and finishes with tables or with candidate lists.
SolverTuning with_auction(bool by_candidates = false) {
  SolverTuning tuning;
  tuning.min_auction_sites = 1;
  if (by_candidates) tuning.max_dense_sites = 1;
  return tuning;
}

enum class Rows { random, skewed, tied, duplicate, equal, far };

Table auction_costs(Rows rows, std::size_t num_rows, std::size_t num_sites, std::uint64_t seed) {
  Table costs = random_costs(num_rows, num_sites, rows == Rows::tied ? 3 : 1 << 24, seed);
  for (std::size_t i = 0; i < num_rows; ++i) {
    if (rows == Rows::skewed) costs[i][seed % num_sites] /= 16;
    if (rows == Rows::duplicate && i % 3 != 0) costs[i] = costs[0];
    if (rows == Rows::equal) costs[i] = costs[0];
    if (rows == Rows::far) std::fill(costs[i].begin() + 1, costs[i].end(), kMaxCost);
    if (rows == Rows::far) costs[i][0] = 0;
  }
  return costs;
}

TEST(AssignmentTuningTest, an_auction_changes_no_label) {
  for (const Rows rows :
       {Rows::random, Rows::skewed, Rows::tied, Rows::duplicate, Rows::equal, Rows::far}) {
    for (const std::size_t num_sites : {3, 24, 70}) {
      SCOPED_TRACE(testing::Message() << static_cast<int>(rows) << ", " << num_sites);
      const std::size_t num_rows = 6 * num_sites;
      const Table costs = auction_costs(rows, num_rows, num_sites, num_sites + 1);
      const Capacities capacities = Capacities::balanced(num_rows, num_sites);
      const TunedResult expected = solve_with({}, costs, capacities, true);
      for (const bool by_candidates : {false, true}) {
        const TunedResult result = solve_with(with_auction(by_candidates), costs, capacities, true);
        ASSERT_TRUE(result.optimal);
        EXPECT_GT(result.statistics.auction_rounds, 0);
        EXPECT_EQ(result.label, expected.label);
      }
    }
  }
}

TEST(AssignmentTuningTest, an_auction_leaves_little_to_the_finish) {
  const Table costs = auction_costs(Rows::skewed, 1200, 40, 5);

  const SolverStatistics before =
      solve_with({}, costs, Capacities::balanced(1200, 40), true).statistics;
  const SolverStatistics with =
      solve_with(with_auction(), costs, Capacities::balanced(1200, 40), true).statistics;

  EXPECT_EQ(before.auction_rounds, 0);
  EXPECT_GT(with.auction_rounds, 0);
  EXPECT_EQ(with.price_passes, 0);
  EXPECT_EQ(with.surplus, before.surplus);
  EXPECT_LE(with.surplus_left, 40);
}

TEST(AssignmentTuningTest, an_auction_of_equal_rows_ends) {
  const Table costs(3000, random_costs(1, 60, 1 << 24, 1)[0]);

  const TunedResult result =
      solve_with(with_auction(true), costs, Capacities::balanced(3000, 60), true);

  EXPECT_TRUE(result.optimal);
  EXPECT_TRUE(std::ranges::is_sorted(result.label));
  EXPECT_GT(result.statistics.auction_rounds, 0);
  EXPECT_LE(result.statistics.auction_bids, 33 * 3000);
}

TEST(AssignmentTuningTest, an_auction_equals_brute_force) {
  for (std::uint64_t seed = 0; seed < 600; ++seed) {
    SCOPED_TRACE(seed);
    RandomStream random(seed, 2, RandomPurpose::verification);
    const std::size_t num_sites = 2 + random.next_below(2);
    std::vector<std::size_t> sizes(num_sites, 1);
    const std::size_t num_rows = 3 + random.next_below(7);
    for (std::size_t i = num_sites; i < num_rows; ++i) ++sizes[random.next_below(num_sites)];
    const auto largest = static_cast<std::int64_t>(1 + random.next_below(6));
    Table costs = random_costs(num_rows, num_sites, largest, seed);
    for (auto& row : costs) row[0] = 0;  // everybody's favourite
    std::vector<std::int32_t> warm(num_sites, 0);
    for (std::int32_t& price : warm) {
      if (seed % 2 == 0) price = static_cast<std::int32_t>(random.next_below(21)) - 10;
    }

    const TunedResult result =
        solve_with(with_auction(), costs, Capacities::exact(sizes), true, warm);

    ASSERT_TRUE(result.optimal);
    ASSERT_EQ(digits(result.label), digits(brute_force(costs, Capacities::exact(sizes)).second));
  }
}

TEST(AssignmentTuningTest, an_auction_reproduces_the_examples) {
  const Table line = line_costs({-1, 0, 1, 2, 9, 11}, {0, 10, 20});
  const TunedResult pushed = solve_with(with_auction(), line, Capacities::exact({2, 2, 2}), true);
  const TunedResult equal =
      solve_with(with_auction(), golden_costs(), Capacities::exact({8, 8, 8, 8, 8}), true);
  const TunedResult ramp =
      solve_with(with_auction(), golden_costs(), Capacities::exact({4, 6, 8, 10, 12}), true);

  EXPECT_EQ(digits(pushed.label), "001122");
  EXPECT_EQ(digits(equal.label), "4024323401223040321041013103223110134424");
  EXPECT_EQ(digits(ramp.label), "4324323404223044321041313203223141134444");
  for (const TunedResult* result : {&pushed, &equal, &ramp}) {
    EXPECT_TRUE(result->optimal);
    EXPECT_GT(result->statistics.auction_rounds, 0);
  }
}

TEST(AssignmentTuningTest, an_auction_goes_on_from_warm_prices) {
  const Table costs = auction_costs(Rows::skewed, 1200, 40, 5);
  const Capacities capacities = Capacities::balanced(1200, 40);
  const TunedResult cold = solve_with(with_auction(), costs, capacities, true);
  Table moved = costs;
  for (std::size_t j = 0; j < 40; ++j) {
    for (auto& row : moved) row[j] += row[(j + 1) % 40] / 256;
  }

  const TunedResult warm = solve_with(with_auction(), moved, capacities, true, cold.price);

  EXPECT_EQ(warm.label, solve_with({}, moved, capacities, true).label);
  EXPECT_GT(warm.statistics.auction_rounds, 0);
  EXPECT_LT(warm.statistics.auction_bids, cold.statistics.auction_bids);
}

TEST(AssignmentTuningTest, only_sites_of_one_size_are_auctioned) {
  const Table costs = auction_costs(Rows::skewed, 241, 24, 5);
  std::vector<std::size_t> with_an_empty_site(24, 10);
  with_an_empty_site[0] = 0;
  with_an_empty_site[1] = 21;

  for (const Capacities& capacities :
       {Capacities::balanced(241, 24), Capacities::exact(with_an_empty_site)}) {
    const TunedResult result = solve_with(with_auction(), costs, capacities, true);

    EXPECT_TRUE(result.optimal);
    EXPECT_EQ(result.statistics.auction_rounds, 0);
    EXPECT_EQ(result.label, solve_with({}, costs, capacities, true).label);
  }
}

TEST(AssignmentTuningTest, more_sites_than_dense_tables_hold) {
  const std::size_t num_rows = 2400;
  const std::size_t num_sites = 600;
  const Table costs = random_costs(num_rows, num_sites, 1 << 22, 2);
  SolverTuning dense;
  dense.max_dense_sites = num_sites;
  dense.min_auction_sites = num_sites + 1;

  const TunedResult by_candidates =
      solve_with({}, costs, Capacities::balanced(num_rows, num_sites), true);
  const TunedResult by_tables =
      solve_with(dense, costs, Capacities::balanced(num_rows, num_sites), true);

  EXPECT_TRUE(by_candidates.optimal);
  EXPECT_GT(by_candidates.statistics.auction_rounds, 0);
  EXPECT_EQ(by_tables.statistics.auction_rounds, 0);
  EXPECT_EQ(by_candidates.label, by_tables.label);
}

}  // namespace
}  // namespace moefy::test
