#include "moefy/balance/assignment.hpp"

#include <gtest/gtest.h>

#include <algorithm>

#include "assignment_support.hpp"
#include "kernels/backends.hpp"
#include "moefy/core/error.hpp"
#include "moefy/core/random.hpp"

namespace moefy::test {
namespace {

using Sizes = std::vector<std::size_t>;
using Prices = std::vector<std::int32_t>;

std::vector<std::size_t> sizes_of(const std::vector<std::int32_t>& label, std::size_t num_sites) {
  std::vector<std::size_t> size(num_sites, 0);
  for (const std::int32_t j : label) ++size[static_cast<std::size_t>(j)];
  return size;
}

// Every worked example holds on every backend.
class AssignmentTest : public OneBackendTest {
 protected:
  Solved run(const Table& costs, const Capacities& capacities) {
    const Solved solved = solve(*backend_, costs, capacities);
    EXPECT_TRUE(solved.certificate.optimal());
    return solved;
  }
};

TEST_P(AssignmentTest, moves_the_cheapest_point) {
  const Table costs = line_costs({0, 1, 2, 3, 10, 11}, {1, 10});

  const Solved three = run(costs, Capacities::exact({3, 3}));
  const Solved two = run(costs, Capacities::exact({2, 4}));

  EXPECT_EQ(digits(three.label), "000111");
  EXPECT_EQ(three.cost(), 52);
  EXPECT_EQ(three.statistics.augmentations, 1);
  EXPECT_EQ(three.price, (Prices{45, 0}));
  EXPECT_EQ(static_cast<std::int64_t>(three.certificate.dual), 52);
  EXPECT_EQ(digits(two.label), "001111");
  EXPECT_EQ(two.cost(), 115);
}

TEST_P(AssignmentTest, uses_squared_distances) {
  const Table costs = {{11 * 11, 1}, {20 * 20 + 25, 10 * 10 + 25}};

  const Solved solved = run(costs, Capacities::exact({1, 1}));

  EXPECT_EQ(digits(solved.label), "01");
  EXPECT_EQ(solved.cost(), 246);
}

TEST_P(AssignmentTest, resolves_differences_below_a_thousandth) {
  // In units of 1/10000; rounded to 1/1000 the other assignment would be as good.
  EXPECT_EQ(digits(run({{5000, 5004}, {5004, 5006}}, Capacities::exact({1, 1})).label), "01");
  // Points (-1, 1), (0, 0) and centres (0, 0), (4, 0).
  const Solved squared = run({{2, 26}, {0, 16}}, Capacities::exact({1, 1}));
  EXPECT_EQ(digits(squared.label), "01");
  EXPECT_EQ(squared.cost(), 18);
}

TEST_P(AssignmentTest, pushes_along_paths_over_a_full_site) {
  const Table costs = line_costs({-1, 0, 1, 2, 9, 11}, {0, 10, 20});

  const Solved solved = run(costs, Capacities::exact({2, 2, 2}));

  EXPECT_EQ(digits(solved.label), "001122");
  EXPECT_EQ(solved.cost(), 348);
  EXPECT_EQ(solved.statistics.augmentations, 2);
  EXPECT_EQ(solved.price, (Prices{200, 120, 0}));
  EXPECT_EQ(static_cast<std::int64_t>(solved.certificate.dual), 348);
}

TEST_P(AssignmentTest, honours_bounds) {
  const Table costs = line_costs({0, 1, 2, 10}, {1, 10});

  const Solved loose = run(costs, Capacities::bounded({{1, 3}, {1, 3}}));
  const Solved tight = run(costs, Capacities::bounded({{1, 3}, {2, 3}}));

  EXPECT_EQ(digits(loose.label), "0001");
  EXPECT_EQ(loose.cost(), 2);
  EXPECT_EQ(digits(tight.label), "0011");
  EXPECT_EQ(tight.cost(), 65);
  EXPECT_EQ(tight.price, (Prices{0, -63}));
  EXPECT_EQ(static_cast<std::int64_t>(tight.certificate.dual), 65);
}

TEST_P(AssignmentTest, lets_the_optimum_decide_which_site_is_larger) {
  // Costs times 4, because a centre lies at 0.5.
  const Table left = line_costs({0, 2, 18, 20, 22}, {1, 20});
  const Table right = line_costs({0, 2, 4, 18, 20}, {1, 20});

  const Solved two_three = run(left, Capacities::balanced(5, 2));
  const Solved three_two = run(right, Capacities::balanced(5, 2));

  EXPECT_EQ(digits(two_three.label), "00111");
  EXPECT_EQ(two_three.cost(), 10);  // 2.5
  EXPECT_EQ(digits(three_two.label), "00011");
  EXPECT_EQ(three_two.cost(), 15);  // 3.75
}

TEST_P(AssignmentTest, breaks_ties_towards_small_labels) {
  EXPECT_EQ(digits(run(Table(6, {0, 0, 0}), Capacities::exact({2, 2, 2})).label), "001122");
  EXPECT_EQ(digits(run(Table(5, {0, 0}), Capacities::balanced(5, 2)).label), "00011");
}

TEST_P(AssignmentTest, reproduces_the_golden_example) {
  const Table costs = golden_costs();
  EXPECT_EQ(costs[0], (std::vector<std::int64_t>{51, 79, 32, 7, 4}));
  EXPECT_EQ(costs[39], (std::vector<std::int64_t>{42, 54, 88, 47, 28}));

  const Solved equal = run(costs, Capacities::exact(Sizes(5, 8)));
  const Solved ramp = run(costs, Capacities::exact({4, 6, 8, 10, 12}));
  const Solved loose = run(costs, Capacities::bounded(std::vector<SizeBounds>(5, {6, 10})));

  EXPECT_EQ(equal.cost(), 520);
  EXPECT_EQ(equal.statistics.augmentations, 4);
  EXPECT_EQ(digits(equal.label), "4024323401223040321041013103223110134424");
  EXPECT_EQ(static_cast<std::int64_t>(equal.certificate.unconstrained), 501);
  EXPECT_EQ(ramp.cost(), 542);
  EXPECT_EQ(ramp.statistics.augmentations, 7);
  EXPECT_EQ(digits(ramp.label), "4324323404223044321041313203223141134444");
  EXPECT_EQ(loose.cost(), 505);
  EXPECT_EQ(loose.price, (Prices{0, -4, 0, 0, 0}));
  EXPECT_EQ(sizes_of(loose.label, 5), (Sizes{8, 6, 10, 8, 8}));
}

TEST_P(AssignmentTest, handles_one_row_one_site_and_as_many_sites_as_rows) {
  EXPECT_EQ(digits(run({{7}}, Capacities::balanced(1, 1)).label), "0");
  EXPECT_EQ(digits(run({{3}, {4}, {5}}, Capacities::balanced(3, 1)).label), "000");
  EXPECT_EQ(digits(run({{9, 1, 5}}, Capacities::bounded({{0, 1}, {0, 0}, {0, 1}})).label), "2");
  const Solved matching = run({{1, 2, 9}, {1, 4, 9}, {1, 5, 7}}, Capacities::balanced(3, 3));
  EXPECT_EQ(digits(matching.label), "102");
  EXPECT_EQ(matching.cost(), 10);
}

TEST_P(AssignmentTest, survives_the_largest_costs_and_prices) {
  // Opposite corners of the range: the free choice and the warm prices are as wrong as they can be.
  Table costs;
  for (std::size_t i = 0; i < 48; ++i) {
    costs.push_back({0, kMaxCost, kMaxCost});
  }
  const Capacities capacities = Capacities::exact({16, 16, 16});
  for (const Prices& warm :
       {Prices{0, 0, 0}, Prices{-kMaxCost, kMaxCost, kMaxCost}, Prices{kMaxCost, -kMaxCost, 0},
        Prices{INT32_MAX, INT32_MIN, INT32_MIN}}) {
    const Solved solved = solve(*backend_, costs, capacities, warm);

    EXPECT_TRUE(solved.certificate.optimal());
    EXPECT_EQ(solved.price, (Prices{kMaxCost, 0, 0}));
    EXPECT_EQ(digits(solved.label),
              std::string(16, '0') + std::string(16, '1') + std::string(16, '2'));
  }
}

TEST_P(AssignmentTest, adding_a_constant_to_a_row_changes_nothing) {
  Table costs = random_costs(120, 7, 50, 3);
  const Capacities capacities = Capacities::balanced(120, 7);
  const Solved before = run(costs, capacities);

  for (std::size_t i = 0; i < costs.size(); ++i) {
    for (std::int64_t& cost : costs[i]) cost += static_cast<std::int64_t>(i * 31);
  }
  const Solved after = run(costs, capacities);

  EXPECT_EQ(after.label, before.label);
  EXPECT_EQ(after.price, before.price);
}

INSTANTIATE_TEST_SUITE_P(Backends, AssignmentTest, testing::ValuesIn(all_backends()), test_suffix);

TEST(AssignmentPropertyTest, equals_brute_force) {
  const auto backend = make_cpu_backend(1);
  for (std::uint64_t seed = 0; seed < 2400; ++seed) {
    SCOPED_TRACE(seed);
    RandomStream random(seed, 1, RandomPurpose::verification);
    const std::size_t num_rows = 1 + random.next_below(9);
    const std::size_t num_sites = 1 + random.next_below(3);
    const auto largest = static_cast<std::int64_t>(1 + random.next_below(6));
    const Table costs = random_costs(num_rows, num_sites, largest, seed);
    std::vector<SizeBounds> bounds(num_sites);
    for (std::size_t i = 0; i < num_rows; ++i) ++bounds[random.next_below(num_sites)].lower;
    for (SizeBounds& bound : bounds) {
      bound.upper = bound.lower;
      if (seed % 3 == 0) continue;  // a third with equal bounds
      bound.upper += random.next_below(4);
      bound.lower -= random.next_below(bound.lower + 1);
    }
    Prices warm(num_sites, 0);
    for (std::int32_t& price : warm) {
      if (seed % 2 == 0) price = static_cast<std::int32_t>(random.next_below(21)) - 10;
    }
    const Capacities capacities = Capacities::bounded(bounds);

    const auto [cost, label] = brute_force(costs, capacities);
    const Solved solved = solve(*backend, costs, capacities, warm);
    const Solved any = solve(*backend, costs, capacities, warm, false);
    const Assignment wide =
        solve_wide(costs, capacities, std::vector<std::int64_t>(warm.begin(), warm.end()));

    ASSERT_TRUE(solved.certificate.optimal());
    ASSERT_TRUE(any.certificate.optimal());
    ASSERT_EQ(solved.cost(), cost);
    ASSERT_EQ(digits(solved.label), digits(label));
    ASSERT_EQ(digits(wide.label), digits(label));
    ASSERT_EQ(wide.price, (std::vector<std::int64_t>(solved.price.begin(), solved.price.end())));
    ASSERT_EQ(static_cast<std::int64_t>(wide.gap), 0);
    ASSERT_EQ(static_cast<std::int64_t>(wide.cost), cost);
  }
}

/// A skewed problem, and what `reference` finds.
struct SolvedProblem {
  Table costs;
  Capacities capacities;
  Solved expected;
  Solved expected_any;
};

/// Larger than a vector and a block of rows, with ties, padding columns and price passes.
const std::vector<SolvedProblem>& solved_problems() {
  static const std::vector<SolvedProblem> problems = [] {
    struct Case {
      std::size_t num_rows, num_sites;
      std::int64_t largest;
    };
    const auto reference = make_reference_backend(1);
    std::vector<SolvedProblem> solved;
    for (const Case& c : {Case{1100, 17, 1 << 20}, Case{2500, 33, 5}, Case{1500, 64, 1 << 28},
                          Case{999, 100, 1000}, Case{5000, 16, 1 << 12}}) {
      Table costs = random_costs(c.num_rows, c.num_sites, c.largest, c.num_rows);
      for (auto& row : costs) row[0] /= 2;
      for (const Capacities& capacities :
           {Capacities::balanced(c.num_rows, c.num_sites),
            Capacities::bounded(std::vector<SizeBounds>(c.num_sites, {1, c.num_rows / 4}))}) {
        solved.push_back({costs, capacities, solve(*reference, costs, capacities),
                          solve(*reference, costs, capacities, {}, false)});
      }
    }
    return solved;
  }();
  return problems;
}

TEST(AssignmentPropertyTest, wide_costs_have_the_same_solution) {
  for (const SolvedProblem& problem : solved_problems()) {
    SCOPED_TRACE(problem.costs.size());
    const Prices& price = problem.expected.price;
    EXPECT_TRUE(problem.expected.certificate.optimal());
    EXPECT_TRUE(problem.expected_any.certificate.optimal());

    const Assignment wide = solve_wide(problem.costs, problem.capacities);

    EXPECT_EQ(wide.label, problem.expected.label);
    EXPECT_EQ(wide.price, (std::vector<std::int64_t>(price.begin(), price.end())));
  }
}

class AssignmentPropertyOfBackendsTest : public BackendTest {};

TEST_P(AssignmentPropertyOfBackendsTest, is_that_of_the_reference_on_any_number_of_threads) {
  for (const std::size_t threads : {1, 3}) {
    const auto backend = make_backend(GetParam(), threads);
    for (const SolvedProblem& problem : solved_problems()) {
      SCOPED_TRACE(testing::Message()
                   << problem.costs.size() << " rows, " << threads << " threads");

      const Solved solved = solve(*backend, problem.costs, problem.capacities);
      const Solved any = solve(*backend, problem.costs, problem.capacities, {}, false);

      EXPECT_EQ(solved.label, problem.expected.label);
      EXPECT_EQ(solved.price, problem.expected.price);
      EXPECT_EQ(any.label, problem.expected_any.label);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Backends, AssignmentPropertyOfBackendsTest,
                         testing::ValuesIn(all_backends()), test_suffix);

TEST(AssignmentPropertyTest, needs_no_augmentation_from_its_own_prices) {
  const auto backend = make_cpu_backend(1);
  const Table costs = random_costs(900, 12, 1 << 26, 5);
  const Capacities capacities = Capacities::exact(Sizes(12, 75));
  const Solved cold = solve(*backend, costs, capacities);

  const Solved warm = solve(*backend, costs, capacities, cold.price);

  EXPECT_GT(cold.statistics.augmentations, 0);
  EXPECT_LE(warm.statistics.augmentations, 11);  // ties at the border of a site only
  EXPECT_EQ(warm.label, cold.label);
}

TEST(AssignmentPropertyTest, mass_duplicates_are_balanced_and_canonical) {
  const auto backend = make_cpu_backend(2);
  const std::size_t num_rows = 50000;
  const std::size_t num_sites = 64;
  const Table costs(num_rows, std::vector<std::int64_t>(num_sites, 0));

  const Solved solved = solve(*backend, costs, Capacities::balanced(num_rows, num_sites));

  ASSERT_TRUE(solved.certificate.optimal());
  EXPECT_TRUE(std::ranges::is_sorted(solved.label));
  // 50000 = 64 * 781 + 16: the first sites are the larger ones.
  EXPECT_EQ(std::ranges::count(solved.label, 15), 782);
  EXPECT_EQ(std::ranges::count(solved.label, 16), 781);
}

TEST(AssignmentPropertyTest, half_of_the_rows_being_equal_is_no_trap) {
  const auto backend = make_cpu_backend(1);
  Table costs = random_costs(20000, 32, 1 << 20, 9);
  for (std::size_t i = 0; i < costs.size(); i += 2) costs[i] = costs[0];

  const Solved solved = solve(*backend, costs, Capacities::balanced(20000, 32));

  EXPECT_TRUE(solved.certificate.optimal());
}

TEST(AssignmentPropertyTest, relax_gives_labels_of_its_prices) {
  const auto backend = make_cpu_backend(1);
  Table costs = random_costs(2000, 20, 1 << 20, 4);
  for (auto& row : costs) row[3] /= 4;
  const CostView q = upload(*backend, costs);
  AssignmentSolver solver(*backend);
  Prices price(20, 0);
  std::vector<std::int32_t> label(2000);

  const SolverStatistics statistics =
      solver.relax(q, Capacities::exact(Sizes(20, 100)), 4, 0.5, price, label);

  EXPECT_GE(statistics.price_passes, 1);
  EXPECT_LT(statistics.surplus_left, statistics.surplus);
  std::vector<std::int32_t> expected(2000);
  for (std::size_t i = 0; i < 2000; ++i) {
    std::size_t best = 0;
    for (std::size_t j = 1; j < 20; ++j) {
      if (costs[i][j] + price[j] < costs[i][best] + price[best]) best = j;
    }
    expected[i] = static_cast<std::int32_t>(best);
  }
  EXPECT_EQ(label, expected);
  EXPECT_EQ(std::ranges::min(price), 0);
}

TEST(AssignmentErrorTest, infeasible_capacities_name_the_sums) {
  const auto backend = make_reference_backend(1);

  try {
    solve(*backend, Table(10, {1, 2}), Capacities::bounded({{1, 4}, {2, 5}}));
    FAIL() << "expected an InputError";
  } catch (const InputError& error) {
    const std::string text = error.what();
    EXPECT_NE(text.find("10 rows"), std::string::npos) << text;
    EXPECT_NE(text.find("add up to 3"), std::string::npos) << text;
    EXPECT_NE(text.find("to 9"), std::string::npos) << text;
  }
  EXPECT_THROW(Capacities::bounded({{3, 2}}).check_feasible(2), InputError);
  EXPECT_THROW(solve_wide(Table(10, {1, 2}), Capacities::exact({4, 5})), InputError);
}

TEST(AssignmentErrorTest, wide_costs_have_a_limit) {
  const std::int64_t limit = std::int64_t{1} << 46;
  const Assignment fits = solve_wide({{0, limit}, {0, limit}}, Capacities::exact({1, 1}));

  EXPECT_EQ(static_cast<std::int64_t>(fits.cost), limit);
  EXPECT_EQ(digits(fits.label), "01");
  EXPECT_THROW(solve_wide({{0, limit + 1}, {0, 0}}, Capacities::exact({1, 1})), InputError);
  EXPECT_THROW(solve_wide({{INT64_MIN, 0}, {0, INT64_MAX}}, Capacities::exact({1, 1})), InputError);
  // A constant per row does not count.
  const std::int64_t far = std::int64_t{1} << 59;
  EXPECT_EQ(digits(solve_wide({{far, far + 2}, {-far, 5 - far}}, Capacities::exact({1, 1})).label),
            "10");
}

TEST(CertificateTest, says_no) {
  const auto backend = make_reference_backend(1);
  const Table costs = line_costs({0, 1, 2, 3, 10, 11}, {1, 10});
  const CostView q = upload(*backend, costs);
  const Capacities equal = Capacities::exact({3, 3});
  const Capacities loose = Capacities::bounded({{1, 5}, {1, 5}});
  const std::vector<std::int32_t> label = {0, 0, 0, 1, 1, 1};

  const Certificate wrong_label =
      check_certificate(*backend, q, equal, Prices{45, 0}, std::vector{0, 0, 1, 0, 1, 1});
  const Certificate wrong_price = check_certificate(*backend, q, equal, Prices{40, 0}, label);
  const Certificate wrong_size =
      check_certificate(*backend, q, Capacities::exact({2, 4}), Prices{45, 0}, label);
  const Certificate slack_price = check_certificate(*backend, q, loose, Prices{45, 0}, label);

  EXPECT_EQ(wrong_label.worst_row, 2);  // 64 against 1 + 45
  EXPECT_EQ(wrong_label.worst_violation, 18);
  EXPECT_EQ(static_cast<std::int64_t>(wrong_label.gap), 18);
  EXPECT_FALSE(wrong_label.optimal());
  EXPECT_EQ(wrong_price.worst_row, 3);
  EXPECT_EQ(wrong_price.worst_violation, 5);
  EXPECT_FALSE(wrong_price.optimal());
  EXPECT_FALSE(wrong_size.sizes_ok);
  EXPECT_FALSE(slack_price.complementary);
  EXPECT_GT(slack_price.gap, 0);
  EXPECT_TRUE(check_certificate(*backend, q, equal, Prices{45, 0}, label).optimal());
  EXPECT_THROW(check_certificate(*backend, q, equal, Prices{45, 0}, std::vector{0, 0, 0, 1, 1, 2}),
               InputError);
}

}  // namespace
}  // namespace moefy::test
