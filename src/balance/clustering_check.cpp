#include <algorithm>
#include <cmath>
#include <limits>

#include "common_mean.hpp"
#include "fixed_point.hpp"
#include "inertia.hpp"
#include "kmeans_context.hpp"
#include "moefy/balance/balanced_kmeans.hpp"
#include "moefy/core/error.hpp"

namespace moefy {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

}  // namespace

ClusteringCheck check_clustering(Backend& backend, const RowsView& rows,
                                 const Capacities& capacities, MatrixView<const float> centroids,
                                 std::span<const double> prices, int cost_scale_log2,
                                 std::span<const std::int32_t> label) {
  const std::size_t num_sites = centroids.rows;
  require(prices.size() == num_sites && label.size() == rows.rows && centroids.cols == rows.cols,
          "labels, prices and centroids belong to the rows");
  const auto points = backend.make_points();
  const std::vector<float> common_mean =
      load_centered(backend, rows, false, *backend.make_site_sums(), *points);
  Matrix<float> used(num_sites, rows.cols);
  for (std::size_t j = 0; j < num_sites; ++j) {
    for (std::size_t l = 0; l < rows.cols; ++l) {
      used.row(j)[l] = centroids.row(j)[l] - (common_mean.empty() ? 0.0F : common_mean[l]);
    }
  }
  const CostView q = backend.cost_buffer(1, rows.rows, num_sites);
  backend.costs(*points, used.view(), cost_scale_log2, all_sites(num_sites), q);
  std::vector<std::int32_t> fixed(num_sites);
  for (std::size_t j = 0; j < num_sites; ++j)
    fixed[j] = price_from_real(prices[j], cost_scale_log2);
  const Certificate certificate = check_certificate(backend, q, capacities, fixed, label);

  ClusteringCheck check;
  check.inertia = backend.inertia(*points, used.view(), label);
  check.duality_gap = certificate.sizes_ok ? relative_gap(certificate) : kInfinity;
  const double quantum = std::ldexp(1.0, -cost_scale_log2);
  const double tau = 4 * points->max_squared_norm * std::ldexp(1.0, -20);
  const double cost = std::max(static_cast<double>(certificate.cost), 1.0) * quantum;
  check.gap_bound = static_cast<double>(rows.rows) * tau / cost;
  check.inertia_unconstrained = static_cast<double>(certificate.unconstrained) * quantum;
  return check;
}

int cost_scale_of(Backend& backend, const RowsView& rows) {
  const auto points = backend.make_points();
  load_centered(backend, rows, false, *backend.make_site_sums(), *points);
  return cost_scale_log2(points->max_squared_norm);
}

LabelFigures figures_of_labels(Backend& backend, const RowsView& rows,
                               std::span<const std::int32_t> label, std::size_t num_sites) {
  const auto points = backend.make_points();
  backend.load(*points, rows, false);
  const auto site_sums = backend.make_site_sums();
  site_sums->clear(num_sites, rows.cols, sum_scale_log2(points->max_abs));
  backend.update_sums(*points, {}, {}, label, *site_sums);
  const SumsView sums = site_sums->on_host(all_sites(num_sites));
  LabelFigures figures;
  figures.centroids = means_of(sums);
  figures.inertia = backend.inertia(*points, figures.centroids.view(), label);
  figures.inertia_random = random_inertia(*points, sums, num_sites);
  figures.zero_rows = points->zero_rows;
  return figures;
}

}  // namespace moefy
