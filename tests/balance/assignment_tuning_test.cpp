// Settings that change how the solver works must not change what it finds.
#include <gtest/gtest.h>

#include "assignment_support.hpp"
#include "exact_solver.hpp"

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

TEST(AssignmentTuningTest, more_sites_than_dense_tables_hold) {
  const std::size_t num_rows = 2400;
  const std::size_t num_sites = 600;
  const Table costs = random_costs(num_rows, num_sites, 1 << 22, 2);
  SolverTuning dense;
  dense.max_dense_sites = num_sites;

  const TunedResult by_candidates =
      solve_with({}, costs, Capacities::balanced(num_rows, num_sites), true);
  const TunedResult by_tables =
      solve_with(dense, costs, Capacities::balanced(num_rows, num_sites), true);

  EXPECT_TRUE(by_candidates.optimal);
  EXPECT_EQ(by_candidates.label, by_tables.label);
}

}  // namespace
}  // namespace moefy::test
