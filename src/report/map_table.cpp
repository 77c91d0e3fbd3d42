#include <fmt/format.h>

#include "map_summary.hpp"
#include "moefy/core/text.hpp"
#include "moefy/report/map_report.hpp"
#include "table.hpp"

namespace moefy {
namespace {

std::string range_text(std::size_t low, std::size_t high) {
  return low == high ? fmt::format("{}", low) : fmt::format("{}..{}", low, high);
}

std::string optional_text(const std::optional<double>& value) {
  return value ? fmt::format("{:.4f}", *value) : "-";
}

std::string header_text(const ExpertMap& map) {
  const ExpertMapHeader& header = map.header;
  return fmt::format(
      "expert map of a {} model: {} of {} layers, seed {}, top-k {}\n"
      "source fingerprint {}\n"
      "options {}\n\n",
      header.model_type, map.layers.size(), header.num_layers, header.seed,
      header.top_k == 0 ? "not chosen" : fmt::format("{}", header.top_k),
      header.source_fingerprint.hex(), header.config);
}

void add_layer(TextTable& table, const LayerResult& layer, const LayerFigures& figures) {
  const bool baseline = layer.stop_reason == StopReason::not_clustered;
  table.add({fmt::format("{}", layer.layer_index), layer.name, method_text(layer),
             fmt::format("{}", layer.lists().num_neurons()),
             fmt::format("{}", layer.lists().num_experts()),
             layer.lists().num_shared() == 0 ? "-" : fmt::format("{}", layer.lists().num_shared()),
             range_text(figures.size_min, figures.size_max), fmt::format("{:.6g}", layer.inertia),
             optional_text(figures.inertia_over_random), optional_text(figures.price_of_balance),
             baseline ? "-" : fmt::format("{:.2g}", layer.duality_gap),
             baseline ? "-" : fmt::format("{}", layer.iterations), to_string(layer.stop_reason),
             layer.router.kind.empty() ? "-" : layer.router.kind});
}

std::string summary_text(const MapSummary& summary) {
  std::string text = fmt::format("\n{} layers, expert sizes {}", summary.num_layers,
                                 range_text(summary.size_min, summary.size_max));
  if (summary.inertia_over_random) {
    text += fmt::format(", inertia {:.4f} of random", *summary.inertia_over_random);
  }
  if (summary.price_of_balance) {
    text += fmt::format(", price of balance {:.4f}", *summary.price_of_balance);
  }
  if (summary.clustered > 0) {
    text += fmt::format(", {} E-steps, proven optimal (gap 0) in {} of {} clustered layers",
                        summary.e_steps, summary.certified, summary.clustered);
  }
  return text + "\n";
}

/// How the layers whose experts share neurons cover them, if there are any.
std::string sharing_text(const ExpertMap& map, std::span<const LayerFigures> figures) {
  TextTable table({"layer", "coverage", "omitted", "duplicates", "overlap", "omitted neurons"});
  bool any = false;
  for (std::size_t i = 0; i < figures.size(); ++i) {
    if (!figures[i].sharing) continue;
    any = true;
    const SharingFigures& sharing = *figures[i].sharing;
    table.add({fmt::format("{}", map.layers[i].layer_index),
               fmt::format("{:.4f}", sharing.coverage), fmt::format("{}", sharing.omitted.size()),
               fmt::format("{}", sharing.duplicates), fmt::format("{:.4f}", sharing.mean_overlap),
               first_numbers(sharing.omitted, 8)});
  }
  return any ? "\n" + table.text() : "";
}

/// Figures that were measured on text, if there are any.
std::string metrics_text(const ExpertMap& map) {
  const std::vector<MetricSummary> metrics = metrics_of(map);
  if (metrics.empty()) return {};
  TextTable table({"measured", "mean", "least", "most", "layers"});
  for (const MetricSummary& metric : metrics)
    table.add({metric.name, fmt::format("{:.4g}", metric.mean), fmt::format("{:.4g}", metric.min),
               fmt::format("{:.4g}", metric.max), fmt::format("{}", metric.layers)});
  return "\n" + table.text();
}

}  // namespace

std::string map_table(const ExpertMap& map) {
  const auto figures = all_figures(map);
  TextTable table({"layer", "name", "method", "neurons", "experts", "shared", "sizes", "inertia",
                   "/random", "/unbalanced", "gap", "E-steps", "stop", "router"});
  for (std::size_t i = 0; i < map.layers.size(); ++i) {
    add_layer(table, map.layers[i], figures[i]);
  }
  return header_text(map) + table.text() + summary_text(summary_of(map, figures)) +
         sharing_text(map, figures) + metrics_text(map);
}

}  // namespace moefy
