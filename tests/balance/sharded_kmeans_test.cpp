#include <algorithm>

#include <gtest/gtest.h>

#include "kernels/backends.hpp"
#include "moefy/balance/balanced_kmeans.hpp"
#include "moefy/core/random.hpp"
#include "support/sharded.hpp"

namespace moefy {
namespace {

Matrix<float> normal_rows(std::size_t rows, std::size_t cols, float mean) {
  Matrix<float> matrix(rows, cols);
  RandomStream random(21, 0, RandomPurpose::bench);
  for (float& value : matrix.values()) value = mean + random.next_normal();
  return matrix;
}

void expect_equal(const BalancedKMeansResult& a, const BalancedKMeansResult& b) {
  EXPECT_EQ(a.label, b.label);
  EXPECT_EQ(a.prices, b.prices);
  EXPECT_EQ(a.trace, b.trace);
  EXPECT_EQ(a.inertia, b.inertia);
  EXPECT_EQ(a.inertia_unconstrained, b.inertia_unconstrained);
  EXPECT_EQ(a.inertia_random, b.inertia_random);
  EXPECT_EQ(a.duality_gap, b.duality_gap);
  EXPECT_EQ(a.zero_rows, b.zero_rows);
  EXPECT_EQ(a.stop_reason, b.stop_reason);
  EXPECT_TRUE(std::ranges::equal(a.centroids.values(), b.centroids.values()));
}

/// Balanced k-means of rows that 1, 2 and 3 members share gives the bytes of one backend alone.
class ShardedKMeansTest : public test::BackendTest {
 protected:
  static void expect_same_on_members(const Matrix<float>& rows, const Capacities& capacities,
                                     const BalancedKMeansConfig& config,
                                     const WarmStart* warm = nullptr) {
    const auto plain = test::make_backend(GetParam());
    BalancedKMeans alone(*plain);
    const auto expected = alone.run(rows.view(), capacities, config, 5, warm);
    const double inertia =
        figures_of_labels(*plain, rows.view(), expected.label, expected.prices.size()).inertia;
    for (const std::size_t members : {1, 2, 3}) {
      SCOPED_TRACE(testing::Message() << members << " members");
      test::Sharded sharded(members, [] { return test::make_backend(GetParam()); });
      BalancedKMeans shared(sharded.backend());
      expect_equal(expected, shared.run(sharded.put(rows.view()), capacities, config, 5, warm));
      EXPECT_EQ(inertia, figures_of_labels(sharded.backend(), sharded.rows().view(), expected.label,
                                           expected.prices.size())
                             .inertia);
    }
  }
};

TEST_P(ShardedKMeansTest, gives_the_same_bytes_for_every_start) {
  const Matrix<float> rows = normal_rows(1100, 24, 0);
  for (const StartMethod start : {StartMethod::faiss, StartMethod::kmeanspp, StartMethod::random}) {
    BalancedKMeansConfig config;
    config.start = start;
    expect_same_on_members(rows, Capacities::balanced(1100, 6), config);
  }
}

TEST_P(ShardedKMeansTest, gives_the_same_bytes_with_int8_stages) {
  const Matrix<float> rows = normal_rows(2100, 130, 0);  // from 2^22 products on
  expect_same_on_members(rows, Capacities::balanced(2100, 17), {});
}

TEST_P(ShardedKMeansTest, gives_the_same_bytes_with_a_common_mean) {
  expect_same_on_members(normal_rows(700, 12, 30), Capacities::balanced(700, 5), {});
}

TEST_P(ShardedKMeansTest, gives_the_same_bytes_with_bounds_and_from_labels) {
  const Matrix<float> rows = normal_rows(900, 16, 0);
  const Capacities bounds = Capacities::bounded(std::vector<SizeBounds>(4, {150, 400}));
  WarmStart warm;
  for (std::int32_t i = 0; i < 900; ++i) warm.label.push_back(i % 3);  // site 3 has no rows
  expect_same_on_members(rows, bounds, {}, &warm);
}

TEST_P(ShardedKMeansTest, has_members_without_rows) {
  expect_same_on_members(normal_rows(200, 8, 0), Capacities::balanced(200, 4), {});
}

INSTANTIATE_TEST_SUITE_P(Backends, ShardedKMeansTest, testing::ValuesIn(test::kinds_of_backends()),
                         test::test_suffix);

}  // namespace
}  // namespace moefy
