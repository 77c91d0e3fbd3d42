#include "map_json.hpp"

#include <cmath>

#include "map_summary.hpp"
#include "moefy/report/map_report.hpp"

namespace moefy {

using nlohmann::json;

json json_number(const std::optional<double>& value) {
  return value && std::isfinite(*value) ? json(*value) : json(nullptr);
}

std::string dump_json(const json& value) {
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

json header_json(const ExpertMap& map) {
  const ExpertMapHeader& header = map.header;
  // The options are shown as they are if they are not JSON.
  json options = json::parse(header.config, nullptr, false);
  if (options.is_discarded()) options = header.config;
  return {{"model_type", header.model_type},
          {"architecture", header.architecture},
          {"num_layers", header.num_layers},
          {"layers_in_map", map.layers.size()},
          {"seed", header.seed},
          {"top_k", header.top_k},
          {"source_fingerprint", header.source_fingerprint.hex()},
          {"options", std::move(options)}};
}

json layer_json(const LayerResult& layer, const LayerFigures& figures) {
  json router = nullptr;
  if (figures.router) {
    router = {{"kind", layer.router.kind},
              {"logit_std", json_number(layer.router.logit_std)},
              {"norm_min", json_number(figures.router->norm_min)},
              {"norm_max", json_number(figures.router->norm_max)},
              {"mean_cosine", json_number(figures.router->mean_cosine)},
              {"bias", !layer.router.bias.empty()}};
  }
  json sharing = nullptr;
  if (figures.sharing) {
    sharing = {{"coverage", figures.sharing->coverage},
               {"omitted", figures.sharing->omitted},
               {"duplicates", figures.sharing->duplicates},
               {"overlap", json::array()}};
    for (std::size_t e = 0; e < figures.sharing->overlap.rows(); ++e) {
      const auto row = figures.sharing->overlap.row(e);
      sharing["overlap"].push_back(std::vector<double>(row.begin(), row.end()));
    }
  }
  json metrics = json::object();
  for (const auto& [name, value] : layer.metrics) metrics[name] = json_number(value);
  return {{"layer_index", layer.layer_index},
          {"name", layer.name},
          {"kind", layer.sharing ? "sharing" : "partition"},
          {"method", layer.method},
          {"weights", layer.weights},
          {"normalize", layer.normalize},
          {"activation", layer.activation},
          {"num_neurons", layer.lists().num_neurons()},
          {"hidden_size", layer.hidden_size},
          {"num_experts", layer.lists().num_experts()},
          {"num_shared", layer.lists().num_shared()},
          {"size_min", figures.size_min},
          {"size_max", figures.size_max},
          {"shared_neurons", figures.shared_neurons},
          {"inertia", json_number(layer.inertia)},
          {"inertia_initial", json_number(layer.inertia_initial)},
          {"inertia_random", json_number(layer.inertia_random)},
          {"inertia_unconstrained", json_number(layer.inertia_unconstrained)},
          {"inertia_over_random", json_number(figures.inertia_over_random)},
          {"price_of_balance", json_number(figures.price_of_balance)},
          {"duality_gap", json_number(layer.duality_gap)},
          {"cost_scale_log2", layer.cost_scale_log2},
          {"iterations", layer.iterations},
          {"converged", layer.converged},
          {"stop_reason", to_string(layer.stop_reason)},
          {"zero_rows", layer.zero_rows},
          {"fingerprint", layer.fingerprint.hex()},
          {"router", std::move(router)},
          {"sharing", std::move(sharing)},
          {"score_scale", json_number(layer.score_scale)},
          {"metrics", std::move(metrics)}};
}

std::vector<std::string> map_json_lines(const ExpertMap& map) {
  const auto figures = all_figures(map);
  const MapSummary summary = summary_of(map, figures);
  json header = header_json(map);
  header["schema_version"] = kReportSchema;
  header["type"] = "map";
  header["summary"] = {{"size_min", summary.size_min},
                       {"size_max", summary.size_max},
                       {"inertia_over_random", json_number(summary.inertia_over_random)},
                       {"price_of_balance", json_number(summary.price_of_balance)},
                       {"largest_gap", json_number(summary.largest_gap)},
                       {"certified", summary.certified},
                       {"clustered", summary.clustered},
                       {"e_steps", summary.e_steps}};
  std::vector<std::string> lines = {dump_json(header)};
  for (std::size_t i = 0; i < map.layers.size(); ++i) {
    json line = layer_json(map.layers[i], figures[i]);
    line["schema_version"] = kReportSchema;
    line["type"] = "layer";
    lines.push_back(dump_json(line));
  }
  return lines;
}

}  // namespace moefy
