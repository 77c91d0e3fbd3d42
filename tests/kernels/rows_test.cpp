#include <algorithm>
#include <limits>

#include <gtest/gtest.h>

#include "kernels/backends.hpp"
#include "moefy/core/error.hpp"

namespace moefy {
namespace {

class RowsTest : public test::BackendTest {};

TEST_P(RowsTest, finds_norms_and_zero_rows) {
  const auto backend = test::make_backend(GetParam());
  Matrix<float> rows(3, 2);
  const float values[] = {3, -4, 0, 0, 1, 1};
  std::copy_n(values, 6, rows.values().begin());
  const auto points = backend->make_points();

  backend->load(*points, rows.view(), true);

  EXPECT_EQ(points->max_squared_norm, 25);
  EXPECT_EQ(points->sum_squared_norm, 27);
  EXPECT_EQ(points->max_abs, 4);
  EXPECT_EQ(points->zero_rows, 1);
}

TEST_P(RowsTest, names_row_and_column_of_a_bad_value) {
  const auto backend = test::make_backend(GetParam());
  for (float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                    -std::numeric_limits<float>::infinity()}) {
    for (std::size_t column : {0, 15, 16, 36}) {
      Matrix<float> rows = test::normal_matrix(300, 37, 1);
      rows.row(213)[column] = bad;
      const auto points = backend->make_points();
      try {
        backend->load(*points, rows.view(), true);
        FAIL() << "accepted " << bad;
      } catch (const InputError& error) {
        const std::string place = "row 213, column " + std::to_string(column);
        EXPECT_NE(std::string(error.what()).find(place), std::string::npos) << error.what();
      }
    }
  }
}

TEST_P(RowsTest, accepts_large_finite_values) {
  const auto backend = test::make_backend(GetParam());
  Matrix<float> rows(1, 40);
  std::fill(rows.values().begin(), rows.values().end(), std::numeric_limits<float>::max());
  const auto points = backend->make_points();

  EXPECT_NO_THROW(backend->load(*points, rows.view(), true));
}

TEST_P(RowsTest, sums_squared_norms_by_blocks) {
  const auto backend = test::make_backend(GetParam());
  Matrix<float> rows(2 * kSumBlock + 1, 1);
  std::fill(rows.values().begin(), rows.values().end(), 2.0F);
  const auto points = backend->make_points();

  backend->load(*points, rows.view(), false);

  EXPECT_EQ(points->block_squared_norm, (std::vector<double>{1024, 1024, 4}));
  EXPECT_EQ(points->sum_squared_norm, 2052);
}

TEST_P(RowsTest, reads_rows_back_shifted_or_not) {
  const auto backend = test::make_backend(GetParam(), 2);
  const Matrix<float> rows = test::normal_matrix(300, 5, 3);
  const std::vector<float> shift = {1, 2, 3, 4, 5};
  const std::vector<std::int32_t> wanted = {299, 0, 257, 257};
  Matrix<float> out(wanted.size(), 5);
  const auto points = backend->make_points();

  backend->load(*points, rows.view(), false);
  backend->read_rows(*points, wanted, out.view());
  for (std::size_t a = 0; a < wanted.size(); ++a) {
    EXPECT_TRUE(std::ranges::equal(out.row(a), rows.row(static_cast<std::size_t>(wanted[a]))));
  }

  backend->load_shifted(*points, rows.view(), shift, false);
  backend->read_rows(*points, wanted, out.view());
  for (std::size_t a = 0; a < wanted.size(); ++a) {
    const auto row = rows.row(static_cast<std::size_t>(wanted[a]));
    for (std::size_t l = 0; l < 5; ++l) EXPECT_EQ(out.row(a)[l], row[l] - shift[l]);
  }
}

TEST_P(RowsTest, shifts_rows_of_any_number_as_the_reference_does) {
  const Matrix<float> shift = test::normal_matrix(1, 37, 4);
  for (const std::size_t n : test::kSizes) {
    SCOPED_TRACE(n);
    const Matrix<float> rows = test::normal_matrix(n, 37, 3);
    const std::vector<std::int32_t> all = test::all_columns(n);
    const auto shifted = [&](Backend& backend) {
      const auto points = backend.make_points();
      backend.load_shifted(*points, rows.view(), shift.values(), true);
      Matrix<float> out(n, 37);
      backend.read_rows(*points, all, out.view());
      std::vector<double> found(out.values().begin(), out.values().end());
      const CostView q = backend.cost_buffer(0, n, 1);
      backend.approximate_costs(*points, {}, shift.view(), 18, q);
      const CostView costs = backend.on_host(q);
      for (std::size_t i = 0; i < n; ++i) found.push_back(costs.row(i)[0]);
      found.insert(found.end(),
                   {points->max_squared_norm, points->sum_squared_norm, points->max_abs});
      return found;
    };

    EXPECT_EQ(shifted(*test::make_backend(GetParam())), shifted(*make_reference_backend(1)));
  }
}

TEST_P(RowsTest, sums_to_nearest_even) {
  const auto backend = test::make_backend(GetParam());
  Matrix<float> rows(1, 9);
  const float values[] = {0.5F, 1.5F, 2.5F, -0.5F, -1.5F, 0.25F, 7, -7, 2.5F};
  std::copy_n(values, 9, rows.values().begin());
  const auto points = backend->make_points();
  backend->load(*points, rows.view(), false);
  const auto sums = test::empty_sums(*backend, 1, 9, 0);

  backend->update_sums(*points, {}, {}, std::vector{0}, *sums);

  EXPECT_EQ(test::read(*sums).sum, (std::vector<std::int64_t>{0, 2, 2, 0, -2, 0, 7, -7, 2}));
}

TEST_P(RowsTest, moves_rows_between_sums_exactly) {
  for (const test::Shape& shape : test::edge_shapes()) {
    SCOPED_TRACE(testing::Message() << shape.rows << " x " << shape.dim << " / " << shape.sites);
    const Matrix<float> rows = test::normal_matrix(shape.rows, shape.dim, 7);
    const auto backend = test::make_backend(GetParam(), 3);
    const auto points = backend->make_points();
    backend->load(*points, rows.view(), false);
    const RowSelection selection{2};
    const std::size_t count = selection.count(shape.rows);
    std::vector<std::int32_t> before(count);
    std::vector<std::int32_t> after(count);
    for (std::size_t i = 0; i < count; ++i) {
      before[i] = static_cast<std::int32_t>(i * 7 % shape.sites) - (i % 5 == 0 ? 1 : 0);
      before[i] = std::max(before[i], -1);
      after[i] = static_cast<std::int32_t>(i * 3 % shape.sites);
    }
    std::vector<std::int32_t> placed = before;
    for (std::int32_t& label : placed) label = std::max(label, 0);
    const auto moved = test::empty_sums(*backend, shape.sites, shape.dim, 38);
    backend->update_sums(*points, selection, {}, placed, *moved);
    backend->update_sums(*points, selection, placed, after, *moved);

    const auto reference = make_reference_backend(1);
    const auto reference_points = reference->make_points();
    reference->load(*reference_points, rows.view(), false);
    const auto expected = test::empty_sums(*reference, shape.sites, shape.dim, 38);
    reference->update_sums(*reference_points, selection, {}, after, *expected);

    EXPECT_EQ(test::read(*moved), test::read(*expected));
  }
}

TEST_P(RowsTest, skips_rows_without_an_old_label) {
  const Matrix<float> rows = test::normal_matrix(40, 5, 8);
  const auto backend = test::make_backend(GetParam());
  const auto points = backend->make_points();
  backend->load(*points, rows.view(), false);
  const std::vector<std::int32_t> label(40, 1);
  const auto from_nothing = test::empty_sums(*backend, 2, 5, 38);
  const auto from_unlabelled = test::empty_sums(*backend, 2, 5, 38);

  backend->update_sums(*points, {}, {}, label, *from_nothing);
  backend->update_sums(*points, {}, std::vector<std::int32_t>(40, -1), label, *from_unlabelled);

  EXPECT_EQ(test::read(*from_nothing), test::read(*from_unlabelled));
  EXPECT_EQ(from_nothing->count, (std::vector<std::int64_t>{0, 40}));
}

TEST_P(RowsTest, adds_squared_distances) {
  const auto backend = test::make_backend(GetParam());
  Matrix<float> rows(3, 2);
  const float values[] = {0, 0, 3, 4, 1, 1};
  std::copy_n(values, 6, rows.values().begin());
  Matrix<float> centroids(2, 2);
  const float centroid_values[] = {0, 0, 1, 3};
  std::copy_n(centroid_values, 4, centroids.values().begin());
  const auto points = backend->make_points();
  backend->load(*points, rows.view(), false);

  EXPECT_EQ(backend->inertia(*points, centroids.view(), std::vector{0, 0, 1}), 25 + 4);
}

TEST_P(RowsTest, agrees_with_the_reference_on_inertia) {
  const Matrix<float> centroids = test::normal_matrix(7, 65, 10);
  for (const std::size_t n : test::kSizes) {
    SCOPED_TRACE(n);
    const Matrix<float> rows = test::normal_matrix(n, 65, 9);
    std::vector<std::int32_t> label(n);
    for (std::size_t i = 0; i < n; ++i) label[i] = static_cast<std::int32_t>(i % 7);
    const auto inertia = [&](Backend& backend) {
      const auto points = backend.make_points();
      backend.load(*points, rows.view(), false);
      return backend.inertia(*points, centroids.view(), label);
    };

    const double expected = inertia(*make_reference_backend(1));
    const double found = inertia(*test::make_backend(GetParam()));

    EXPECT_NEAR(found, expected, 1e-9 * expected);
    EXPECT_EQ(inertia(*test::make_backend(GetParam(), 3)), found);
  }
}

INSTANTIATE_TEST_SUITE_P(Backends, RowsTest, testing::ValuesIn(test::all_backends()),
                         test::test_suffix);

}  // namespace
}  // namespace moefy
