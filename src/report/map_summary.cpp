#include "map_summary.hpp"

#include <algorithm>
#include <map>

namespace moefy {
namespace {

/// Mean of the values that are there.
class Mean {
 public:
  void add(const std::optional<double>& value) {
    if (!value) return;
    sum_ += *value;
    count_ += 1;
  }
  std::optional<double> get() const {
    if (count_ == 0) return std::nullopt;
    return sum_ / count_;
  }

 private:
  double sum_ = 0;
  double count_ = 0;
};

}  // namespace

std::vector<LayerFigures> all_figures(const ExpertMap& map) {
  std::vector<LayerFigures> figures;
  for (const LayerResult& layer : map.layers) figures.push_back(figures_of(layer));
  return figures;
}

std::vector<MetricSummary> metrics_of(const ExpertMap& map) {
  std::map<std::string, MetricSummary> by_name;
  for (const LayerResult& layer : map.layers) {
    for (const auto& [name, value] : layer.metrics) {
      auto [at, fresh] = by_name.try_emplace(name, MetricSummary{name, 0, value, value, 0});
      MetricSummary& summary = at->second;
      summary.mean += value;
      summary.min = std::min(summary.min, value);
      summary.max = std::max(summary.max, value);
      ++summary.layers;
    }
  }
  std::vector<MetricSummary> summaries;
  for (auto& [name, summary] : by_name) {
    summary.mean /= static_cast<double>(summary.layers);
    summaries.push_back(std::move(summary));
  }
  return summaries;
}

std::string method_text(const LayerResult& layer) {
  if (layer.stop_reason != StopReason::not_clustered) return layer.method + " on " + layer.weights;
  const bool baseline = layer.method == "random" || layer.method == "contiguous";
  return baseline ? layer.method + " (baseline)" : layer.method;
}

MapSummary summary_of(const ExpertMap& map, std::span<const LayerFigures> figures) {
  MapSummary summary;
  Mean inertia_over_random;
  Mean price_of_balance;
  for (std::size_t i = 0; i < map.layers.size(); ++i) {
    const LayerResult& layer = map.layers[i];
    const std::size_t experts = layer.lists().num_experts();
    const bool first = i == 0;
    summary.experts_min = first ? experts : std::min(summary.experts_min, experts);
    summary.experts_max = std::max(summary.experts_max, experts);
    summary.size_min =
        first ? figures[i].size_min : std::min(summary.size_min, figures[i].size_min);
    summary.size_max = std::max(summary.size_max, figures[i].size_max);
    inertia_over_random.add(figures[i].inertia_over_random);
    price_of_balance.add(figures[i].price_of_balance);
    summary.num_layers += 1;
    if (layer.stop_reason == StopReason::not_clustered) continue;
    summary.clustered += 1;
    summary.certified += layer.duality_gap == 0 ? 1 : 0;
    summary.largest_gap = std::max(summary.largest_gap, layer.duality_gap);
    summary.e_steps += layer.iterations;
  }
  summary.inertia_over_random = inertia_over_random.get();
  summary.price_of_balance = price_of_balance.get();
  return summary;
}

}  // namespace moefy
