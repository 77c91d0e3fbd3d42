#include "moefy/report/layer_figures.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <span>

namespace moefy {
namespace {

double squared_norm(std::span<const float> row) {
  return std::transform_reduce(row.begin(), row.end(), 0.0, std::plus<>(),
                               [](float value) { return double{value} * value; });
}

std::optional<double> ratio(double numerator, double denominator) {
  if (!(denominator > 0) || !std::isfinite(numerator)) return std::nullopt;
  return numerator / denominator;
}

/// The sum over pairs of cosines is (|sum of unit rows|^2 - rows) / 2, so no pair is formed.
RouterFigures router_figures(const Matrix<float>& weight) {
  RouterFigures figures;
  figures.norm_min = std::numeric_limits<double>::infinity();
  std::vector<double> sum(weight.cols(), 0.0);
  double num_rows = 0;
  for (std::size_t expert = 0; expert < weight.rows(); ++expert) {
    const auto row = weight.row(expert);
    const double norm = std::sqrt(squared_norm(row));
    figures.norm_min = std::min(figures.norm_min, norm);
    figures.norm_max = std::max(figures.norm_max, norm);
    if (norm == 0) continue;
    num_rows += 1;
    for (std::size_t column = 0; column < row.size(); ++column) sum[column] += row[column] / norm;
  }
  if (num_rows >= 2) {
    const double square = std::inner_product(sum.begin(), sum.end(), sum.begin(), 0.0);
    figures.mean_cosine = (square - num_rows) / (num_rows * (num_rows - 1));
  }
  return figures;
}

bool has_unit_rows(const LayerResult& layer) {
  const auto num_neurons = static_cast<std::int64_t>(layer.lists().num_neurons());
  return layer.normalize == "l2" && layer.centroids.rows() > 0 &&
         100 * layer.zero_rows < num_neurons;
}

}  // namespace

std::vector<std::size_t> expert_sizes(const NeuronLists& lists) {
  std::vector<std::size_t> sizes(lists.num_experts());
  for (std::size_t expert = 0; expert < sizes.size(); ++expert) {
    sizes[expert] = lists.expert_members(expert).size();
  }
  return sizes;
}

LayerFigures figures_of(const LayerResult& layer) {
  LayerFigures figures;
  const auto sizes = expert_sizes(layer.lists());
  if (!sizes.empty()) {
    const auto [smallest, largest] = std::ranges::minmax_element(sizes);
    figures.size_min = *smallest;
    figures.size_max = *largest;
  }
  figures.shared_neurons = layer.lists().shared_members().size();
  figures.inertia_over_random = ratio(layer.inertia, layer.inertia_random);
  figures.price_of_balance = ratio(layer.inertia, layer.inertia_unconstrained);
  if (layer.router.weight.rows() > 0) figures.router = router_figures(layer.router.weight);
  if (has_unit_rows(layer)) {
    for (std::size_t expert = 0; expert < layer.centroids.rows(); ++expert) {
      figures.spread.push_back(std::max(0.0, 1.0 - squared_norm(layer.centroids.row(expert))));
    }
  }
  if (layer.sharing) figures.sharing = sharing_figures(*layer.sharing);
  return figures;
}

}  // namespace moefy
