#include <algorithm>
#include <cmath>

#include <gtest/gtest.h>

#include "kernels/backends.hpp"
#include "moefy/core/error.hpp"

namespace moefy {
namespace {

using test::Shape;

constexpr int kScale = 18;

/// One backend with the same rows and centroids loaded as any other of the same shape.
class LoadedBackend {
 public:
  LoadedBackend(std::unique_ptr<Backend> backend_in, const Shape& shape)
      : backend(std::move(backend_in)),
        rows(test::normal_matrix(shape.rows, shape.dim, 1)),
        centroids(test::normal_matrix(shape.sites, shape.dim, 2)),
        moved(test::normal_matrix(shape.sites, shape.dim, 3)),
        points(backend->make_points()) {
    for (std::size_t i = 0; i < moved.values().size(); ++i) {
      moved.values()[i] = centroids.values()[i] + 0.05F * moved.values()[i];
    }
    backend->load(*points, rows.view(), true);
  }

  /// Costs in the backend's memory; on_host() of them is for expectations.
  CostView exact(std::size_t slot) {
    const CostView q = backend->cost_buffer(slot, rows.rows(), centroids.rows());
    backend->costs(*points, centroids.view(), kScale, test::all_columns(centroids.rows()), q);
    return q;
  }
  CostView approximate(std::size_t slot, RowSelection selection) {
    const CostView q = backend->cost_buffer(slot, selection.count(rows.rows()), centroids.rows());
    backend->approximate_costs(*points, selection, centroids.view(), kScale, q);
    return q;
  }
  /// Every third column changed, on top of the (exactly reproducible) int8 costs.
  CostView changed(bool copy_others) {
    const CostView base = approximate(0, {});
    const CostView q = filled(1, rows.rows(), 77);
    backend->changed_costs(*points, centroids.view(), moved.view(), kScale, every_third_column(),
                           copy_others, base, q);
    return q;
  }
  CostView filled(std::size_t slot, std::size_t num_rows, std::int32_t value) {
    Matrix<std::int32_t> costs(num_rows, centroids.rows());
    std::ranges::fill(costs.values(), value);
    const CostView q = backend->cost_buffer(slot, num_rows, centroids.rows());
    backend->write_costs(costs.view(), q);
    return q;
  }
  CostView on_host(const CostView& q) { return backend->on_host(q); }
  std::vector<std::int32_t> every_third_column() const {
    std::vector<std::int32_t> columns;
    for (std::size_t j = 0; j < centroids.rows(); j += 3) {
      columns.push_back(static_cast<std::int32_t>(j));
    }
    return columns;
  }
  /// Copies of rows have the changes of cost that the rows have.
  void expect_changes_of_copies(const std::vector<std::int32_t>& copied) {
    const CostView all = on_host(changed(true));
    const CostView base = backend->cost_buffer(2, copied.size(), centroids.rows());
    const CostView q = backend->cost_buffer(3, copied.size(), centroids.rows());
    backend->copy_rows(approximate(0, {}), copied, base);
    const auto copies = backend->make_points();
    backend->copy_quantized(*points, copied, *copies);
    backend->changed_costs(*copies, centroids.view(), moved.view(), kScale, every_third_column(),
                           true, base, q);
    const CostView found = on_host(q);
    for (std::size_t a = 0; a < copied.size(); ++a) {
      for (std::size_t j = 0; j < q.num_sites; ++j) {
        ASSERT_EQ(found.row(a)[j], all.row(static_cast<std::size_t>(copied[a]))[j])
            << "copied row " << a << " column " << j;
      }
    }
  }

  std::unique_ptr<Backend> backend;
  Matrix<float> rows;
  Matrix<float> centroids;
  Matrix<float> moved;
  std::unique_ptr<Points> points;
};

void expect_equal(const CostView& expected, const CostView& found) {
  ASSERT_EQ(expected.num_rows, found.num_rows);
  ASSERT_EQ(expected.stride, found.stride);
  for (std::size_t i = 0; i < expected.num_rows; ++i) {
    for (std::size_t j = 0; j < expected.stride; ++j) {
      ASSERT_EQ(expected.row(i)[j], found.row(i)[j]) << "row " << i << " column " << j;
    }
  }
}

/// Also columns that a block of a GPU adds up in several parts.
std::vector<Shape> edges_and_long_rows() {
  std::vector<Shape> shapes = test::edge_shapes();
  shapes.push_back({33, 5, 5000});
  shapes.push_back({3, 2, 4099});
  return shapes;
}

class CostsTest : public test::BackendTest {
 protected:
  static LoadedBackend reference(const Shape& shape) { return {make_reference_backend(1), shape}; }
  static LoadedBackend tested(const Shape& shape, std::size_t threads = 1) {
    return {test::make_backend(GetParam(), threads), shape};
  }
};

TEST_P(CostsTest, computes_costs_within_rounding_of_the_reference) {
  for (const Shape& shape : edges_and_long_rows()) {
    SCOPED_TRACE(testing::Message() << shape.rows << " x " << shape.dim << " / " << shape.sites);
    LoadedBackend expected = reference(shape);
    LoadedBackend found = tested(shape);
    // tau = 4 R² 2^-20, in quanta: what two correct fp32 evaluations may differ by.
    const double tau = 4 * expected.points->max_squared_norm * std::ldexp(1.0, kScale - 20) + 1;

    const CostView a = expected.exact(0);
    const CostView b = found.on_host(found.exact(0));

    for (std::size_t i = 0; i < a.num_rows; ++i) {
      for (std::size_t j = 0; j < a.stride; ++j) {
        ASSERT_NEAR(a.row(i)[j], b.row(i)[j], tau) << "row " << i << " column " << j;
      }
    }
  }
}

TEST_P(CostsTest, leaves_other_columns_alone) {
  for (const std::size_t sites : {20, 33}) {
    SCOPED_TRACE(sites);
    LoadedBackend loaded = tested({33, sites, 5});
    const CostView all = loaded.on_host(loaded.exact(0));
    const CostView q = loaded.filled(1, 33, -5);
    const auto last = static_cast<std::int32_t>(sites - 1);
    const std::vector<std::int32_t> columns{0, 15, 16, last};

    loaded.backend->costs(*loaded.points, loaded.centroids.view(), kScale, columns, q);
    const CostView some = loaded.on_host(q);

    for (std::size_t i = 0; i < 33; ++i) {
      for (std::size_t j = 0; j < sites; ++j) {
        const bool computed =
            std::ranges::find(columns, static_cast<std::int32_t>(j)) != columns.end();
        ASSERT_EQ(some.row(i)[j], computed ? all.row(i)[j] : -5) << "row " << i << " column " << j;
      }
    }
  }
}

TEST_P(CostsTest, computes_the_same_int8_costs) {
  for (const Shape& shape : edges_and_long_rows()) {
    SCOPED_TRACE(testing::Message() << shape.rows << " x " << shape.dim << " / " << shape.sites);
    LoadedBackend expected = reference(shape);
    LoadedBackend found = tested(shape);

    for (std::size_t step : {1, 2, 4}) {
      for (std::size_t first : {0, 1, 2}) {
        const RowSelection selection{step, first};
        if (selection.count(shape.rows) == 0) continue;
        expect_equal(expected.approximate(0, selection),
                     found.on_host(found.approximate(0, selection)));
      }
    }
  }
}

TEST_P(CostsTest, computes_the_same_int8_changes) {
  for (const Shape& shape : edges_and_long_rows()) {
    SCOPED_TRACE(testing::Message() << shape.rows << " x " << shape.dim << " / " << shape.sites);
    LoadedBackend expected = reference(shape);
    LoadedBackend found = tested(shape);

    for (bool copy_others : {false, true}) {
      expect_equal(expected.changed(copy_others), found.on_host(found.changed(copy_others)));
    }
  }
}

TEST_P(CostsTest, sums_the_largest_int8_products_exactly) {
  Matrix<float> rows(2, 64);
  std::fill(rows.row(0).begin(), rows.row(0).end(), 1.0F);
  std::fill(rows.row(1).begin(), rows.row(1).end(), -1.0F);
  std::vector<CostView> costs;
  std::vector<std::unique_ptr<Backend>> backends;
  backends.push_back(make_reference_backend(1));
  backends.push_back(test::make_backend(GetParam()));
  for (const auto& backend : backends) {
    const auto points = backend->make_points();
    backend->load(*points, rows.view(), true);
    costs.push_back(backend->cost_buffer(0, 2, 2));

    backend->approximate_costs(*points, {}, rows.view(), kScale, costs.back());
  }

  expect_equal(costs[0], backends[1]->on_host(costs[1]));
}

TEST_P(CostsTest, computes_the_same_int8_changes_for_copied_rows) {
  for (const Shape& shape : test::edge_shapes()) {
    SCOPED_TRACE(testing::Message() << shape.rows << " x " << shape.dim << " / " << shape.sites);
    LoadedBackend expected = reference(shape);
    LoadedBackend found = tested(shape, 2);
    std::vector<std::int32_t> rows;
    for (std::size_t i = 0; i < shape.rows; i += 1 + i % 3) {
      rows.push_back(static_cast<std::int32_t>(i));
    }

    expected.expect_changes_of_copies(rows);
    found.expect_changes_of_copies(rows);
  }
}

TEST_P(CostsTest, approximates_the_exact_costs) {
  LoadedBackend loaded = tested({257, 17, 64});
  const CostView exact = loaded.on_host(loaded.exact(0));

  const CostView approximate = loaded.on_host(loaded.approximate(1, {}));

  // Steps of about 3/127 in 64 elements: an error of some 0.5 in costs of about 128.
  const double tolerance = std::ldexp(3.0, kScale);
  for (std::size_t i = 0; i < exact.num_rows; ++i) {
    for (std::size_t j = 0; j < exact.num_sites; ++j) {
      ASSERT_NEAR(exact.row(i)[j], approximate.row(i)[j], tolerance);
    }
  }
}

TEST_P(CostsTest, gives_the_same_bits_on_three_threads) {
  const Shape shape{1000, 33, 65};
  LoadedBackend one = tested(shape);
  LoadedBackend three = tested(shape, 3);

  expect_equal(one.on_host(one.exact(0)), three.on_host(three.exact(0)));
  expect_equal(one.on_host(one.approximate(0, {4})), three.on_host(three.approximate(0, {4})));
  expect_equal(one.on_host(one.changed(true)), three.on_host(three.changed(true)));
}

TEST_P(CostsTest, clamps_costs_at_zero_and_at_the_largest) {
  const auto backend = test::make_backend(GetParam());
  Matrix<float> rows(1, 3);
  std::fill(rows.values().begin(), rows.values().end(), 1.0F);
  Matrix<float> centroids(2, 3);
  std::fill(centroids.row(0).begin(), centroids.row(0).end(), 1.0F);
  std::fill(centroids.row(1).begin(), centroids.row(1).end(), -1000.0F);
  const auto points = backend->make_points();
  backend->load(*points, rows.view(), false);
  const CostView q = backend->cost_buffer(0, 1, 2);

  backend->costs(*points, centroids.view(), 20, test::all_columns(2), q);

  const CostView costs = backend->on_host(q);
  EXPECT_EQ(costs.row(0)[0], 0);
  EXPECT_EQ(costs.row(0)[1], kMaxCost);
}

TEST_P(CostsTest, multiplies_like_the_reference) {
  for (const Shape& shape : test::edge_shapes()) {
    SCOPED_TRACE(testing::Message() << shape.rows << " x " << shape.dim << " / " << shape.sites);
    const Matrix<float> a = test::normal_matrix(shape.rows, shape.dim, 4);
    const Matrix<float> b = test::normal_matrix(shape.sites, shape.dim, 5);
    Matrix<float> expected(shape.rows, shape.sites);
    Matrix<float> found(shape.rows, shape.sites);

    make_reference_backend(1)->multiply_transposed(a.view(), b.view(), expected.view());
    test::make_backend(GetParam(), 2)->multiply_transposed(a.view(), b.view(), found.view());

    for (std::size_t i = 0; i < found.values().size(); ++i) {
      ASSERT_NEAR(expected.values()[i], found.values()[i], 1e-4) << "element " << i;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Backends, CostsTest, testing::ValuesIn(test::tested_backends()),
                         test::test_suffix);

TEST(ReferenceBackendTest, computes_squared_distances_in_fixed_point) {
  const auto backend = make_reference_backend(1);
  Matrix<float> rows(2, 2);
  const float row_values[] = {1, 2, 0, 0};
  std::copy_n(row_values, 4, rows.values().begin());
  Matrix<float> centroids(1, 2);
  const float centroid_values[] = {4, -2};
  std::copy_n(centroid_values, 2, centroids.values().begin());
  const auto points = backend->make_points();
  backend->load(*points, rows.view(), false);
  const CostView q = backend->cost_buffer(0, 2, 1);

  backend->costs(*points, centroids.view(), 3, test::all_columns(1), q);

  EXPECT_EQ(q.row(0)[0], 25 * 8);
  EXPECT_EQ(q.row(1)[0], 20 * 8);
  EXPECT_EQ(q.stride, 16U);
  EXPECT_EQ(q.row(1)[15], 0);
}

TEST(RowSelectionTest, takes_whole_blocks_by_global_index) {
  const RowSelection every_third{3};

  EXPECT_EQ(every_third.count(0), 0U);
  EXPECT_EQ(every_third.count(64), 64U);
  EXPECT_EQ(every_third.count(192), 64U);
  EXPECT_EQ(every_third.count(200), 72U);  // block 0 and the 8 rows of block 3
  EXPECT_EQ(every_third.global(63), 63U);
  EXPECT_EQ(every_third.global(64), 192U);
  const RowSelection from_the_second{3, 1};
  EXPECT_EQ(from_the_second.count(64), 0U);
  EXPECT_EQ(from_the_second.count(65), 1U);
  EXPECT_EQ(from_the_second.count(300), 64U + 44U);
  EXPECT_EQ(from_the_second.global(0), 64U);
  EXPECT_EQ(from_the_second.global(64), 256U);
}

TEST(CpuBackendTest, is_named_after_its_instruction_set) {
  for (const std::string& name : test::testable_instruction_sets()) {
    EXPECT_EQ(make_cpu_backend(1, name)->name(), "cpu (" + name + ")");
  }
}

TEST(CpuBackendTest, refuses_unknown_instruction_sets) {
  EXPECT_THROW(make_cpu_backend(1, "sse9"), UsageError);
}

}  // namespace
}  // namespace moefy
