#include "layer_rules.hpp"

#include <fmt/format.h>

#include <cmath>
#include <cstddef>
#include <span>

#include "moefy/core/dtype.hpp"

namespace moefy {
namespace {

std::optional<std::string> find_matrix_problem(const Matrix<float>& matrix, const char* name,
                                               std::size_t num_experts) {
  if (matrix.rows() == 0 && matrix.cols() == 0) return std::nullopt;
  if (matrix.rows() != num_experts || matrix.cols() == 0) {
    return fmt::format("{} is [{}, {}], expected {} rows", name, matrix.rows(), matrix.cols(),
                       num_experts);
  }
  if (const auto at = first_non_finite(matrix.values())) {
    return fmt::format("{}: row {}, column {} is not finite", name, *at / matrix.cols(),
                       *at % matrix.cols());
  }
  return std::nullopt;
}

}  // namespace

std::optional<std::string> find_layer_problem(const LayerResult& layer) {
  const std::size_t num_experts = layer.lists().num_experts();
  if (layer.layer_index < 0) return fmt::format("layer_index is {}", layer.layer_index);
  if (layer.sharing && layer.partition.num_neurons() > 0)
    return "both a partition and lists that share neurons";
  if (layer.score_scale && !(std::isfinite(*layer.score_scale) && *layer.score_scale > 0))
    return fmt::format("score_scale is {}, expected a number above 0", *layer.score_scale);
  if (layer.hidden_size < 0) return fmt::format("hidden_size is {}", layer.hidden_size);
  if (auto problem = find_matrix_problem(layer.centroids, "centroids", num_experts)) {
    return problem;
  }
  if (auto problem = find_matrix_problem(layer.router.weight, "router/weight", num_experts)) {
    return problem;
  }
  if (auto problem = find_matrix_problem(layer.router.output, "router/1/weight", num_experts)) {
    return problem;
  }
  if (layer.router.output.rows() > 0 && layer.router.output.cols() != num_experts) {
    return fmt::format("router/1/weight has {} columns for {} experts", layer.router.output.cols(),
                       num_experts);
  }
  const auto& weight = layer.router.weight;
  if (weight.rows() > 0 && weight.cols() != static_cast<std::size_t>(layer.hidden_size)) {
    return fmt::format("router/weight has {} columns, expected hidden_size = {}", weight.cols(),
                       layer.hidden_size);
  }
  if (!layer.prices.empty() && layer.prices.size() != num_experts) {
    return fmt::format("{} prices for {} experts", layer.prices.size(), num_experts);
  }
  for (std::size_t expert = 0; expert < layer.prices.size(); ++expert) {
    if (!std::isfinite(layer.prices[expert])) {
      return fmt::format("the price of expert {} is not finite", expert);
    }
  }
  if (!layer.router.bias.empty() && layer.router.bias.size() != num_experts) {
    return fmt::format("router/bias has {} values for {} experts", layer.router.bias.size(),
                       num_experts);
  }
  if (const auto at = first_non_finite(layer.router.bias)) {
    return fmt::format("router/bias of expert {} is not finite", *at);
  }
  for (std::size_t i = 0; i < layer.metrics.size(); ++i) {
    const auto& [name, value] = layer.metrics[i];
    if (!std::isfinite(value)) return fmt::format("the metric '{}' is not finite", name);
    if (name.empty() || (i > 0 && layer.metrics[i - 1].first >= name))
      return fmt::format("the metric '{}' is out of order", name);
  }
  return std::nullopt;
}

}  // namespace moefy
