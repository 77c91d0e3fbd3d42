#include "moefy/jobs/score_scale.hpp"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "moefy/core/error.hpp"
#include "moefy/jobs/model_source.hpp"

namespace moefy {

ScoreScales::ScoreScales(const std::string& model, const std::filesystem::path& map_file,
                         const std::string& architecture_file)
    : map_(read_expert_map(map_file)) {
  if (!map_.header.refit_file.empty())
    throw UsageError(
        fmt::format("{}: its down projections are refitted ({}), which makes up for the scale, too",
                    map_file.string(), map_.header.refit_file));
  const ModelSource source = open_model(model, architecture_file);
  for (const LayerResult& layer : map_.layers) {
    const std::string place = fmt::format("{}: layer {}", map_file.string(), layer.layer_index);
    const auto index = static_cast<std::size_t>(layer.layer_index);
    if (index >= source.layers.size() ||
        layer_fingerprint(source.checkpoint, source.layers[index]) != layer.fingerprint)
      throw InputError(place + " was made from other weights than those of " + model);
    if (layer.router.weight.rows() == 0) throw InputError(place + " has no router");
  }
}

void ScoreScales::write(const std::filesystem::path& output, const std::vector<double>& scales,
                        const std::string& options) {
  require(scales.size() == map_.layers.size(), "a scale for every layer of the map");
  for (std::size_t i = 0; i < scales.size(); ++i) map_.layers[i].score_scale = scales[i];
  nlohmann::json config = nlohmann::json::parse(map_.header.config, nullptr, false);
  if (!config.is_object()) config = nlohmann::json::object();
  config["score-scale"] = nlohmann::json::parse(options);
  map_.header.config = config.dump();
  write_expert_map(output, map_);
}

}  // namespace moefy
