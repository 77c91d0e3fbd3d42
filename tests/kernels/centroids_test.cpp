// Centroids and the sums that they are means of, where a backend computes.
#include <cmath>
#include <cstring>
#include <utility>

#include <gtest/gtest.h>

#include "kernels/backends.hpp"

namespace moefy {
namespace {

constexpr int kScale = 18;

/// Means of rows that are dealt out by label (some sites stay empty), and how far they are from
/// where the centroids were.
struct Moved {
  std::vector<float> means;
  std::vector<double> shifts;
  std::vector<double> compared;
  std::vector<std::int32_t> changed;
  bool operator==(const Moved&) const = default;
};

Moved move(Backend& backend, const test::Shape& shape) {
  const Matrix<float> rows = test::normal_matrix(shape.rows, shape.dim, 3);
  const Matrix<float> start = test::normal_matrix(shape.sites, shape.dim, 4);
  const auto points = backend.make_points();
  backend.load(*points, rows.view(), false);
  std::vector<std::int32_t> label(shape.rows);
  for (std::size_t i = 0; i < label.size(); ++i) {
    label[i] = static_cast<std::int32_t>(i * i % shape.sites);
  }
  const auto sums = test::empty_sums(backend, shape.sites, shape.dim, 38);
  backend.update_sums(*points, {}, {}, label, *sums);
  std::vector<std::int32_t> filled;
  for (std::size_t j = 0; j < shape.sites; ++j) {
    if (sums->count[j] > 0) filled.push_back(static_cast<std::int32_t>(j));
  }
  const auto before = test::centroids_of(backend, start.view());
  const auto centroids = test::centroids_of(backend, start.view());

  Moved moved;
  moved.shifts = sums->move_to_means(filled, *centroids);
  moved.means = test::read(*centroids);
  moved.compared = centroids->squared_shifts(*before);
  moved.changed = centroids->changed_sites(*before);
  return moved;
}

class CentroidsTest : public test::BackendTest {};

TEST_P(CentroidsTest, become_means_with_the_bits_of_the_reference) {
  const auto reference = make_reference_backend(1);
  std::vector<test::Shape> shapes = test::edge_shapes();
  shapes.push_back({20, 3, 9001});  // more columns than a block of a GPU adds at a time
  for (const test::Shape& shape : shapes) {
    SCOPED_TRACE(testing::Message() << shape.rows << " x " << shape.dim << " / " << shape.sites);
    const auto backend = test::make_backend(GetParam(), 2);
    EXPECT_EQ(move(*backend, shape), move(*reference, shape));
  }
}

TEST_P(CentroidsTest, are_means_of_rows) {
  const auto backend = test::make_backend(GetParam());
  Matrix<float> rows(3, 2);
  const float values[] = {1, 2, 4, 8, 5, 5};
  std::copy_n(values, 6, rows.values().begin());
  const auto points = backend->make_points();
  backend->load(*points, rows.view(), false);
  const auto sums = test::empty_sums(*backend, 3, 2, 30);
  backend->update_sums(*points, {}, {}, std::vector{2, 2, 0}, *sums);
  const auto centroids = test::centroids_of(*backend, rows.view());

  const std::vector<double> shifts = sums->move_to_means(std::vector{2}, *centroids);

  EXPECT_EQ(test::read(*centroids), (std::vector<float>{1, 2, 4, 8, 2.5F, 5}));
  EXPECT_EQ(shifts, std::vector{6.25});
}

TEST_P(CentroidsTest, differ_by_their_bits) {
  const auto backend = test::make_backend(GetParam());
  Matrix<float> values = test::normal_matrix(5, 130, 1);
  values.row(1)[129] = 0;
  values.row(3)[0] = 1;
  const auto before = test::centroids_of(*backend, values.view());
  const auto same = test::centroids_of(*backend, before->view());
  values.row(1)[129] = -0.0F;
  values.row(3)[0] = std::nextafter(1.0F, 2.0F);
  const auto after = test::centroids_of(*backend, values.view());

  EXPECT_TRUE(same->changed_sites(*before).empty());
  EXPECT_EQ(after->changed_sites(*before), (std::vector{1, 3}));
  EXPECT_EQ(after->squared_shifts(*before)[1], 0);
}

TEST_P(CentroidsTest, cost_the_same_from_host_and_backend) {
  const auto backend = test::make_backend(GetParam());
  const std::size_t sites = 19;
  const Matrix<float> rows = test::normal_matrix(257, 65, 1);
  const Matrix<float> old_values = test::normal_matrix(sites, 65, 2);
  const Matrix<float> new_values = test::normal_matrix(sites, 65, 3);
  const auto old_centroids = test::centroids_of(*backend, old_values.view());
  const auto new_centroids = test::centroids_of(*backend, new_values.view());
  const auto points = backend->make_points();
  backend->load(*points, rows.view(), true);
  const auto costs_of = [&](const RowsView& before, const RowsView& now) {
    std::vector<std::int32_t> all;
    const auto keep = [&](const CostView& q) {
      const CostView costs = backend->on_host(q);
      all.insert(all.end(), costs.data, costs.data + costs.num_rows * costs.stride);
    };
    const CostView base = backend->cost_buffer(0, 257, sites);
    backend->costs(*points, before, kScale, test::all_columns(sites), base);
    backend->costs(*points, now, kScale, std::vector{0, 7, 18}, base);
    keep(base);
    const CostView q = backend->cost_buffer(1, 257, sites);
    backend->approximate_costs(*points, {2}, now, kScale, backend->cost_buffer(2, 129, sites));
    backend->changed_costs(*points, before, now, kScale, std::vector{1, 17}, true, base, q);
    keep(q);
    backend->changed_costs(*points, before, now, kScale, test::all_columns(sites), false, base, q);
    keep(q);
    return all;
  };

  EXPECT_EQ(costs_of(old_centroids->view(), new_centroids->view()),
            costs_of(old_values.view(), new_values.view()));
  std::vector<std::int32_t> label(257);
  for (std::size_t i = 0; i < label.size(); ++i) label[i] = static_cast<std::int32_t>(i % sites);
  EXPECT_EQ(backend->inertia(*points, new_centroids->view(), label),
            backend->inertia(*points, new_values.view(), label));
}

TEST_P(CentroidsTest, keep_their_memory_for_another_shape) {
  const auto backend = test::make_backend(GetParam());
  const auto centroids = test::centroids_of(*backend, test::normal_matrix(7, 9, 1).view());
  const Matrix<float> smaller = test::normal_matrix(3, 4, 2);

  centroids->resize(3, 4);
  centroids->assign(smaller.view());

  const std::vector<float> found = test::read(*centroids);
  EXPECT_TRUE(std::ranges::equal(found, smaller.values()));
}

TEST_P(CentroidsTest, sums_of_some_sites_can_be_read) {
  const auto backend = test::make_backend(GetParam());
  const Matrix<float> rows = test::normal_matrix(100, 33, 5);
  const auto points = backend->make_points();
  backend->load(*points, rows.view(), false);
  std::vector<std::int32_t> label(100);
  for (std::size_t i = 0; i < label.size(); ++i) label[i] = static_cast<std::int32_t>(i % 6);
  const auto sums = test::empty_sums(*backend, 6, 33, 38);
  backend->update_sums(*points, {}, {}, label, *sums);
  const std::vector<std::int64_t> all = test::read(*sums).sum;

  const SumsView some = sums->on_host(std::vector{1, 2, 5});

  for (const std::size_t j : {1, 2, 5}) {
    EXPECT_TRUE(std::equal(some.sum.row(j).begin(), some.sum.row(j).end(),
                           all.begin() + static_cast<std::ptrdiff_t>(j * 33)));
  }
  EXPECT_EQ(some.scale_log2, 38);
}

INSTANTIATE_TEST_SUITE_P(Backends, CentroidsTest, testing::ValuesIn(test::all_backends()),
                         test::test_suffix);

}  // namespace
}  // namespace moefy
