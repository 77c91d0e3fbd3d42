#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "moefy/report/layer_figures.hpp"
#include "moefy/store/expert_map.hpp"

namespace moefy {

/// What is said about all layers of a map together; means over the layers that have the figure.
struct MapSummary {
  std::int64_t num_layers = 0;
  std::size_t experts_min = 0;
  std::size_t experts_max = 0;
  std::size_t size_min = 0;
  std::size_t size_max = 0;
  std::optional<double> inertia_over_random;
  std::optional<double> price_of_balance;
  double largest_gap = 0;
  std::int64_t certified = 0;  ///< layers whose gap is 0
  std::int64_t clustered = 0;  ///< layers that are not a baseline
  std::int64_t e_steps = 0;
};

/// One of LayerResult::metrics over the layers that have it.
struct MetricSummary {
  std::string name;
  double mean = 0;
  double min = 0;
  double max = 0;
  std::int64_t layers = 0;
};
/// Names ascending.
std::vector<MetricSummary> metrics_of(const ExpertMap& map);

/// "kmeans on gate", "random (baseline)", "activation".
std::string method_text(const LayerResult& layer);

/// `figures` are those of map.layers, in order.
MapSummary summary_of(const ExpertMap& map, std::span<const LayerFigures> figures);
std::vector<LayerFigures> all_figures(const ExpertMap& map);

}  // namespace moefy
