#include "split_report.hpp"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <ostream>

#include "machine.hpp"
#include "moefy/backend/cuda_memory.hpp"
#include "moefy/core/utf8.hpp"
#include "moefy/report/map_report.hpp"

namespace moefy {

namespace {

/// Seconds summed over layers: of one phase, or of all.
double total_seconds(const ExpertMap& map, std::string_view phase = {}) {
  double total = 0;
  for (const LayerResult& layer : map.layers)
    for (const auto& [name, seconds] : layer.seconds)
      if (phase.empty() || name == phase) total += seconds;
  return total;
}

nlohmann::json phases_json(const ExpertMap& map) {
  nlohmann::json phases = nlohmann::json::object();
  for (const LayerResult& layer : map.layers)
    for (const auto& [name, seconds] : layer.seconds)
      phases[name] = phases.value(name, 0.0) + seconds;
  return phases;
}

/// The phases of each layer, in the order of the layers.
nlohmann::json layers_json(const ExpertMap& map) {
  nlohmann::json layers = nlohmann::json::array();
  for (const LayerResult& layer : map.layers) {
    layers.push_back(nlohmann::json::object());
    for (const auto& [name, seconds] : layer.seconds) layers.back()[name] = seconds;
  }
  return layers;
}

}  // namespace

void report_split(JobContext& context, const ExpertMap& map, const std::filesystem::path& output,
                  const QueueStatistics& statistics, double queue_seconds) {
  if (context.json) {
    for (const std::string& line : map_json_lines(map)) context.out << line << '\n';
    const nlohmann::json summary = {{"schema_version", kReportSchema},
                                    {"type", "split"},
                                    {"output", valid_utf8(output.string())},
                                    {"layers", map.layers.size()},
                                    {"items_by_rank", statistics.items_by_rank},
                                    {"busy_seconds_by_rank", statistics.busy_seconds_by_rank},
                                    {"bytes_sent", statistics.payload_bytes_sent},
                                    {"queue_seconds", queue_seconds},
                                    {"peak_memory", peak_memory()},
                                    {"peak_device_memory", peak_cuda_memory()},
                                    {"seconds", phases_json(map)},
                                    {"seconds_by_layer", layers_json(map)}};
    context.out << summary.dump() << '\n';
    return;
  }
  context.out << map_table(map);
  context.log.info(fmt::format(
      "{}: {} layers, {} of work in layers, {} of it reading", output.string(), map.layers.size(),
      format_seconds(total_seconds(map)), format_seconds(total_seconds(map, "read"))));
}

}  // namespace moefy
