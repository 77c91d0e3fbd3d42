#include "moefy/balance/balanced_kmeans.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <set>

#include <gtest/gtest.h>

#include "kernels/backends.hpp"
#include "moefy/core/error.hpp"
#include "moefy/core/random.hpp"

namespace moefy {
namespace {

Matrix<float> matrix_of(std::size_t cols, const std::vector<float>& values) {
  Matrix<float> matrix(values.size() / cols, cols);
  std::copy(values.begin(), values.end(), matrix.values().begin());
  return matrix;
}

Matrix<float> normal_rows(std::size_t rows, std::size_t cols, std::uint64_t seed) {
  Matrix<float> matrix(rows, cols);
  RandomStream random(seed, 0, RandomPurpose::bench);
  for (float& value : matrix.values()) value = random.next_normal();
  return matrix;
}

/// Rows around `centers` far apart, site by i mod centers.
Matrix<float> separated_blobs(std::size_t rows, std::size_t cols, std::size_t centers) {
  Matrix<float> blobs = normal_rows(rows, cols, 11);
  const Matrix<float> center = normal_rows(centers, cols, 12);
  for (std::size_t i = 0; i < rows; ++i) {
    for (std::size_t l = 0; l < cols; ++l) {
      blobs.row(i)[l] = 0.1F * blobs.row(i)[l] + 10 * center.row(i % centers)[l];
    }
  }
  return blobs;
}

std::vector<std::size_t> sizes_of(std::span<const std::int32_t> label, std::size_t sites) {
  std::vector<std::size_t> sizes(sites, 0);
  for (std::int32_t site : label) ++sizes.at(static_cast<std::size_t>(site));
  return sizes;
}

void expect_balanced(std::span<const std::int32_t> label, std::size_t sites) {
  for (std::size_t size : sizes_of(label, sites)) {
    EXPECT_GE(size, label.size() / sites);
    EXPECT_LE(size, (label.size() + sites - 1) / sites);
  }
}

void expect_falling(const std::vector<double>& trace) {
  for (std::size_t t = 1; t + 1 < trace.size(); ++t) EXPECT_LT(trace[t], trace[t - 1]) << t;
  if (trace.size() > 1) {
    EXPECT_LE(trace.back(), trace[trace.size() - 2]);
  }
}

void expect_equal(const BalancedKMeansResult& a, const BalancedKMeansResult& b) {
  EXPECT_EQ(a.label, b.label);
  EXPECT_EQ(a.prices, b.prices);
  EXPECT_EQ(a.trace, b.trace);
  EXPECT_EQ(a.inertia, b.inertia);
  EXPECT_TRUE(std::equal(a.centroids.values().begin(), a.centroids.values().end(),
                         b.centroids.values().begin()));
}

BalancedKMeansResult cluster(Backend& backend, const Matrix<float>& rows, std::size_t sites,
                             const BalancedKMeansConfig& config = {},
                             const WarmStart* warm = nullptr) {
  BalancedKMeans clustering(backend);
  return clustering.run(rows.view(), Capacities::balanced(rows.rows(), sites), config, 0, warm);
}

class BalancedKMeansTest : public test::OneBackendTest {};

TEST_P(BalancedKMeansTest, follows_the_worked_example_on_a_line) {
  const Matrix<float> rows = matrix_of(1, {0, 1, 2, 10, 11, 12});
  WarmStart start;
  start.centroids = matrix_of(1, {0, 1});

  const auto result = cluster(*backend_, rows, 2, {}, &start);

  EXPECT_EQ(result.trace, (std::vector<double>{307, 4}));
  EXPECT_EQ(result.label, (std::vector<std::int32_t>{0, 0, 0, 1, 1, 1}));
  EXPECT_EQ(result.centroids.row(0)[0], 1);
  EXPECT_EQ(result.centroids.row(1)[0], 11);
  EXPECT_EQ(result.inertia, 4);
  EXPECT_EQ(result.inertia_initial, 307);
  EXPECT_EQ(result.duality_gap, 0);
  EXPECT_EQ(result.stop_reason, StopReason::fixpoint);
}

TEST_P(BalancedKMeansTest, follows_the_worked_example_in_the_plane) {
  Matrix<float> rows(32, 2);
  for (std::size_t i = 0; i < 32; ++i) {
    rows.row(i)[0] = static_cast<float>((7 * i + 3) % 23);
    rows.row(i)[1] = static_cast<float>((5 * i * i + i) % 29);
  }
  WarmStart start;
  start.centroids.resize(4, 2);
  std::copy_n(rows.values().begin(), 8, start.centroids.values().begin());

  const auto result = cluster(*backend_, rows, 4, {}, &start);

  EXPECT_EQ(result.trace, (std::vector<double>{1697, 725.125, 708.125}));
  EXPECT_EQ(result.inertia, 708.125);
  std::string label;
  for (std::int32_t site : result.label) label += static_cast<char>('0' + site);
  EXPECT_EQ(label, "00232213113013013022321002331102");
}

TEST_P(BalancedKMeansTest, stops_at_the_cap_with_the_means_of_its_labels) {
  Matrix<float> rows = matrix_of(1, {0, 1, 2, 10, 11, 12});
  WarmStart start;
  start.centroids = matrix_of(1, {0, 1});
  BalancedKMeansConfig config;
  config.max_iterations = 1;

  const auto result = cluster(*backend_, rows, 2, config, &start);

  EXPECT_EQ(result.stop_reason, StopReason::cap);
  EXPECT_EQ(result.trace, (std::vector<double>{307}));
  EXPECT_EQ(result.centroids.row(1)[0], 11);
}

TEST_P(BalancedKMeansTest, keeps_its_own_result) {
  const Matrix<float> rows = normal_rows(300, 20, 1);
  const auto first = cluster(*backend_, rows, 7);
  WarmStart own;
  own.label = first.label;
  for (std::int32_t price : first.prices) {
    own.prices.push_back(std::ldexp(price, -first.cost_scale_log2));
  }

  const auto again = cluster(*backend_, rows, 7, {}, &own);

  EXPECT_EQ(again.label, first.label);
  EXPECT_EQ(again.trace.size(), 1U);
  EXPECT_EQ(again.stop_reason, StopReason::fixpoint);
  // Its own prices leave at most the rows that tie between two sites to be moved.
  EXPECT_LT(again.steps.front().surplus, 7);
}

TEST_P(BalancedKMeansTest, never_keeps_labels_of_other_sizes) {
  const Matrix<float> rows = matrix_of(1, {0, 0, 0, 5, 5, 5});
  WarmStart start;
  start.label = {0, 0, 0, 0, 0, 1};

  const auto result = cluster(*backend_, rows, 2, {}, &start);

  expect_balanced(result.label, 2);
  EXPECT_EQ(result.inertia, 0);
}

TEST_P(BalancedKMeansTest, gives_the_same_labels_for_scaled_rows) {
  const Matrix<float> rows = normal_rows(500, 40, 2);
  const auto expected = cluster(*backend_, rows, 8);
  for (int exponent : {-20, 20}) {
    Matrix<float> scaled(500, 40);
    std::transform(rows.values().begin(), rows.values().end(), scaled.values().begin(),
                   [&](float value) { return std::ldexp(value, exponent); });

    EXPECT_EQ(cluster(*backend_, scaled, 8).label, expected.label) << exponent;
  }
}

TEST_P(BalancedKMeansTest, ends_optimal_with_a_falling_trace) {
  for (StartMethod start : {StartMethod::faiss, StartMethod::kmeanspp, StartMethod::random}) {
    for (std::size_t rows : {65, 500, 1003}) {
      BalancedKMeansConfig config;
      config.start = start;

      const auto result = cluster(*backend_, normal_rows(rows, 33, 3), 10, config);

      EXPECT_EQ(result.stop_reason, StopReason::fixpoint);
      EXPECT_EQ(result.duality_gap, 0);
      expect_balanced(result.label, 10);
      expect_falling(result.trace);
      EXPECT_LE(result.inertia_unconstrained, result.trace.back());
      EXPECT_NEAR(result.trace.back(), result.inertia, 1e-4 * result.inertia);
    }
  }
}

TEST_P(BalancedKMeansTest, balances_zero_rows_and_duplicates) {
  const Matrix<float> zero = matrix_of(2, std::vector<float>(20, 0));
  const auto all_zero = cluster(*backend_, zero, 3);
  expect_balanced(all_zero.label, 3);
  EXPECT_EQ(all_zero.inertia, 0);
  EXPECT_EQ(all_zero.zero_rows, 10);
  EXPECT_EQ(all_zero.cost_scale_log2, 0);

  std::vector<float> values;
  for (int i = 0; i < 64; ++i) values.insert(values.end(), {static_cast<float>(i % 3), 1});
  const auto duplicates = cluster(*backend_, matrix_of(2, values), 4);
  expect_balanced(duplicates.label, 4);
  EXPECT_EQ(duplicates.duality_gap, 0);
}

TEST_P(BalancedKMeansTest, survives_one_giant_row) {
  Matrix<float> rows = normal_rows(200, 16, 4);
  for (float& value : rows.row(77)) value *= 1000;

  const auto result = cluster(*backend_, rows, 5);

  expect_balanced(result.label, 5);
  EXPECT_EQ(result.duality_gap, 0);
}

TEST_P(BalancedKMeansTest, handles_one_site_and_one_row_a_site) {
  const Matrix<float> rows = normal_rows(12, 5, 5);

  const auto one = cluster(*backend_, rows, 1);
  const auto each = cluster(*backend_, rows, 12);

  EXPECT_EQ(one.label, std::vector<std::int32_t>(12, 0));
  expect_balanced(each.label, 12);
  EXPECT_NEAR(each.inertia, 0, 1e-9);
}

TEST_P(BalancedKMeansTest, recovers_separated_blobs) {
  const Matrix<float> rows = separated_blobs(240, 8, 6);
  BalancedKMeansConfig config;
  config.start = StartMethod::kmeanspp;

  const auto result = cluster(*backend_, rows, 6, config);

  for (std::size_t i = 6; i < 240; ++i) EXPECT_EQ(result.label[i], result.label[i % 6]) << i;
}

TEST_P(BalancedKMeansTest, subtracts_a_dominating_mean) {
  Matrix<float> rows = normal_rows(300, 12, 6);
  const auto expected = cluster(*backend_, rows, 6);
  for (float& value : rows.values()) value = std::round(value * 1024) / 1024 + 64;
  Matrix<float> centered(300, 12);
  for (std::size_t i = 0; i < rows.values().size(); ++i) {
    centered.values()[i] = rows.values()[i] - 64;
  }
  const auto shifted = cluster(*backend_, rows, 6);

  EXPECT_EQ(shifted.duality_gap, 0);
  // Costs were computed between rows of norm 3.5, not 220: the scale shows it.
  EXPECT_GE(shifted.cost_scale_log2, expected.cost_scale_log2 - 1);
  EXPECT_NEAR(shifted.centroids.row(0)[0], 64, 4);
  const double recomputed = figures_of_labels(*backend_, centered.view(), shifted.label, 6).inertia;
  EXPECT_NEAR(shifted.inertia, recomputed, 1e-5 * recomputed);
}

TEST_P(BalancedKMeansTest, knows_what_a_random_split_would_cost) {
  // Of 0 1 2 3 there are three splits in pairs; they cost 1, 4 and 5.
  EXPECT_DOUBLE_EQ(cluster(*backend_, matrix_of(1, {0, 1, 2, 3}), 2).inertia_random, 10.0 / 3);
  // The same far from 0, where the mean is subtracted.
  EXPECT_DOUBLE_EQ(cluster(*backend_, matrix_of(1, {96, 97, 98, 99}), 2).inertia_random, 10.0 / 3);
  EXPECT_EQ(cluster(*backend_, matrix_of(1, {0, 1, 2}), 3).inertia_random, 0);
}

TEST_P(BalancedKMeansTest, counts_zero_rows_though_a_mean_is_subtracted) {
  std::vector<float> values(60, 8);
  values[17] = 0;
  EXPECT_EQ(cluster(*backend_, matrix_of(1, values), 3).zero_rows, 1);
}

TEST_P(BalancedKMeansTest, keeps_prescribed_sizes_and_bounds) {
  const Matrix<float> rows = normal_rows(100, 9, 7);
  BalancedKMeans clustering(*backend_);

  const auto exact = clustering.run(rows.view(), Capacities::exact({10, 20, 30, 40}), {}, 0);
  const auto bounded =
      clustering.run(rows.view(), Capacities::bounded({{0, 100}, {30, 35}, {5, 20}}), {}, 0);

  EXPECT_EQ(sizes_of(exact.label, 4), (std::vector<std::size_t>{10, 20, 30, 40}));
  const auto sizes = sizes_of(bounded.label, 3);
  EXPECT_TRUE(sizes[1] >= 30 && sizes[1] <= 35 && sizes[2] >= 5 && sizes[2] <= 20);
  EXPECT_EQ(bounded.duality_gap, 0);
}

TEST_P(BalancedKMeansTest, is_confirmed_by_the_check) {
  const Matrix<float> rows = normal_rows(400, 24, 8);
  const auto result = cluster(*backend_, rows, 9);
  std::vector<double> prices;
  for (std::int32_t price : result.prices) {
    prices.push_back(std::ldexp(price, -result.cost_scale_log2));
  }
  const auto check = [&](std::span<const std::int32_t> label) {
    return check_clustering(*backend_, rows.view(), Capacities::balanced(400, 9),
                            result.centroids.view(), prices, result.cost_scale_log2, label);
  };

  const ClusteringCheck right = check(result.label);
  std::vector<std::int32_t> swapped = result.label;
  const auto other = std::find_if(swapped.begin(), swapped.end(),
                                  [&](std::int32_t site) { return site != swapped[0]; });
  std::iter_swap(swapped.begin(), other);
  std::vector<std::int32_t> uneven = result.label;
  std::fill_n(uneven.begin(), 100, 0);

  EXPECT_EQ(right.duality_gap, 0);
  EXPECT_NEAR(right.inertia, result.inertia, 1e-9 * result.inertia);
  EXPECT_NEAR(figures_of_labels(*backend_, rows.view(), result.label, 9).inertia_random,
              result.inertia_random, 1e-9 * result.inertia_random);
  EXPECT_GT(check(swapped).duality_gap, 0);
  EXPECT_TRUE(std::isinf(check(uneven).duality_gap));
}

TEST_P(BalancedKMeansTest, gives_the_same_bytes_on_three_threads) {
  const Matrix<float> rows = normal_rows(1500, 40, 9);
  const auto three = test::make_backend(GetParam(), 3);

  expect_equal(cluster(*backend_, rows, 16), cluster(*three, rows, 16));
}

TEST_P(BalancedKMeansTest, does_not_depend_on_earlier_layers) {
  const Matrix<float> rows = normal_rows(700, 30, 10);
  BalancedKMeans clustering(*backend_);
  const auto capacities = Capacities::balanced(700, 8);
  const auto fresh = clustering.run(rows.view(), capacities, {}, 3);
  clustering.run(normal_rows(900, 50, 11).view(), Capacities::balanced(900, 20), {}, 4);

  expect_equal(clustering.run(rows.view(), capacities, {}, 3), fresh);
}

INSTANTIATE_TEST_SUITE_P(Backends, BalancedKMeansTest, testing::ValuesIn(test::kinds_of_backends()),
                         test::test_suffix);

TEST(BalancedKMeansRunTest, is_never_worse_with_more_starts) {
  const auto backend = make_cpu_backend(1);
  const Matrix<float> rows = normal_rows(800, 30, 12);
  BalancedKMeansConfig one;
  BalancedKMeansConfig three;
  three.num_redo = 3;

  EXPECT_LE(cluster(*backend, rows, 12, three).inertia, cluster(*backend, rows, 12, one).inertia);
}

TEST(BalancedKMeansRunTest, starts_differently_by_seed_and_layer) {
  const auto backend = make_cpu_backend(1);
  const Matrix<float> rows = normal_rows(800, 30, 13);
  for (StartMethod start : {StartMethod::faiss, StartMethod::kmeanspp, StartMethod::random}) {
    std::set<std::vector<double>> traces;
    BalancedKMeans clustering(*backend);
    for (std::uint64_t key : {0, 1, 2}) {
      BalancedKMeansConfig config;
      config.start = start;
      config.seed = key / 2;
      traces.insert(
          clustering.run(rows.view(), Capacities::balanced(800, 12), config, key % 2).trace);
    }
    EXPECT_EQ(traces.size(), 3U);
  }
}

TEST(BalancedKMeansRunTest, uses_every_start_schedule) {
  const auto backend = make_cpu_backend(1);
  const Matrix<float> rows = normal_rows(4096, 64, 14);
  for (bool subsample : {false, true}) {
    for (bool loose : {false, true}) {
      for (StartMethod start : {StartMethod::faiss, StartMethod::random}) {
        BalancedKMeansConfig config;
        config.start = start;
        config.schedule.subsample = subsample;
        config.schedule.loose_iterations = loose;

        const auto result = cluster(*backend, rows, 32, config);

        EXPECT_EQ(result.stop_reason, StopReason::fixpoint);
        EXPECT_EQ(result.duality_gap, 0);
        expect_balanced(result.label, 32);
        expect_falling(result.trace);
      }
    }
  }
}

TEST(BalancedKMeansRunTest, agrees_across_instruction_sets_within_half_a_percent) {
  const Matrix<float> rows = normal_rows(2048, 64, 15);
  const double expected = cluster(*make_cpu_backend(1, "portable"), rows, 32).inertia;

  EXPECT_NEAR(cluster(*make_cpu_backend(1), rows, 32).inertia, expected, 0.005 * expected);
}

TEST(BalancedKMeansRunTest, refuses_bad_input) {
  const auto backend = make_cpu_backend(1);
  Matrix<float> rows = normal_rows(50, 6, 16);
  BalancedKMeans clustering(*backend);
  EXPECT_THROW(clustering.run(rows.view(), Capacities::exact({20, 20}), {}, 0), InputError);
  rows.row(31)[4] = std::numeric_limits<float>::quiet_NaN();

  try {
    clustering.run(rows.view(), Capacities::balanced(50, 2), {}, 0);
    FAIL() << "accepted a NaN";
  } catch (const InputError& error) {
    EXPECT_NE(std::string(error.what()).find("row 31, column 4"), std::string::npos);
  }
}

TEST(BalancedKMeansRunTest, refuses_rows_beyond_fp32_distances) {
  const auto backend = make_cpu_backend(1);
  const Matrix<float> rows = matrix_of(1, {1e30F, -1e30F, 1, 2});
  BalancedKMeans clustering(*backend);

  EXPECT_THROW(clustering.run(rows.view(), Capacities::balanced(4, 2), {}, 0), InputError);
}

TEST(BalancedKMeansRunTest, stops_on_request) {
  const auto backend = make_cpu_backend(1);
  const Matrix<float> rows = normal_rows(600, 10, 17);
  BalancedKMeans clustering(*backend);
  std::stop_source source;
  source.request_stop();

  EXPECT_THROW(
      clustering.run(rows.view(), Capacities::balanced(600, 4), {}, 0, nullptr, source.get_token()),
      Interrupted);
}

TEST(FiguresOfLabelsTest, use_the_means_of_the_labels) {
  const auto backend = make_reference_backend(1);
  const Matrix<float> rows = matrix_of(1, {0, 2, 10, 14});

  const LabelFigures figures = figures_of_labels(*backend, rows.view(), std::vector{0, 0, 1, 1}, 2);

  EXPECT_EQ(figures.inertia, 2 + 8);
  EXPECT_EQ(figures.zero_rows, 1);
  EXPECT_EQ(figures.centroids.row(0)[0], 1);
  EXPECT_EQ(figures.centroids.row(1)[0], 12);
}

}  // namespace
}  // namespace moefy
