#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "moefy/convert/convert.hpp"
#include "moefy/core/error.hpp"
#include "moefy/core/file.hpp"
#include "moefy/core/hash.hpp"
#include "plan.hpp"

namespace moefy {

namespace {

using Json = nlohmann::ordered_json;
constexpr const char* kFormat = "moefy-conversion";
constexpr int kSchema = 1;

std::string file_digest(const std::filesystem::path& path) {
  constexpr std::size_t kBlock = std::size_t{1} << 20;
  const InputFile file(path);
  Hasher hasher;
  std::vector<std::byte> block(kBlock);
  for (std::uint64_t done = 0; done < file.size();) {
    const std::size_t count =
        static_cast<std::size_t>(std::min<std::uint64_t>(kBlock, file.size() - done));
    file.read(done, std::span(block).first(count));
    hasher.add(std::span(block).first(count));
    done += count;
  }
  return hasher.digest().hex();
}

Json options_of(const ConversionPlan& plan) {
  const ConvertConfig& config = plan.config;
  return {{"host", plan.host},
          {"top_k", plan.is_moe() ? Json(plan.shape.top_k) : Json()},
          {"gate_scale", config.gate_scale},
          {"score_scale", config.score_scale},
          {"align", config.align},
          {"uneven", config.uneven},
          {"layout", config.layout},
          {"shard_size", config.shard_size},
          {"use_refit", config.use_refit}};
}

Json read_manifest(const std::filesystem::path& directory) {
  const std::filesystem::path path = manifest_of_output(directory);
  if (!std::filesystem::exists(path))
    throw InputError(
        fmt::format("{}: no moefy/manifest.json; not made by `moefy convert`", directory.string()));
  try {
    Json json = Json::parse(read_text_file(path));
    if (json.at("format") != kFormat)
      throw InputError(fmt::format("{}: not a manifest of moefy", path.string()));
    if (json.at("schema_version") != kSchema)
      throw InputError(fmt::format("{}: schema {}, this moefy reads {}; take a newer moefy",
                                   path.string(), json.at("schema_version").dump(), kSchema));
    if (json.contains("recovered"))
      throw UsageError(
          fmt::format("{}: trained by `moefy recover`, so its weights are no rearrangement of the "
                      "dense model's: "
                      "neither to be verified nor to be restored; the model it began from is",
                      directory.string()));
    return json;
  } catch (const nlohmann::json::exception& error) {
    throw InputError(fmt::format("{}: {}", path.string(), error.what()));
  }
}

ConvertConfig options_from(const Json& json, const std::filesystem::path& path) {
  try {
    const Json& options = json.at("options");
    ConvertConfig config;
    config.host = options.at("host");
    if (!options.at("top_k").is_null()) config.top_k = options.at("top_k").get<std::int64_t>();
    config.gate_scale = options.at("gate_scale");
    config.score_scale = options.value("score_scale", "auto");
    config.align = options.at("align");
    config.uneven = options.at("uneven");
    config.layout = options.at("layout");
    config.shard_size = options.at("shard_size");
    config.use_refit = options.value("use_refit", false);
    if (const auto problems = config.validate(); !problems.empty())
      throw InputError(fmt::format("{}: {}", path.string(), problems.front()));
    return config;
  } catch (const nlohmann::json::exception& error) {
    throw InputError(fmt::format("{}: {}", path.string(), error.what()));
  }
}

/// Sorted keys: their order in a file means nothing.
void add_differences(const std::string& key, const nlohmann::json& there, const nlohmann::json& now,
                     std::vector<std::string>& lines) {
  if (there == now) return;
  if (there.is_object() && now.is_object()) {
    for (const auto& [name, value] : now.items())
      add_differences(key.empty() ? name : key + "." + name,
                      there.contains(name) ? there[name] : nlohmann::json(), value, lines);
    return;
  }
  constexpr std::size_t kLongest = 60;
  const auto shown = [](const nlohmann::json& value) {
    const std::string text = value.dump();
    return text.size() > kLongest ? text.substr(0, kLongest) + "…" : text;
  };
  lines.push_back(fmt::format("{}: there {}, now {}", key, shown(there), shown(now)));
}

}  // namespace

std::filesystem::path map_of_output(const std::filesystem::path& directory) {
  return directory / "moefy" / "map.h5";
}

std::filesystem::path manifest_of_output(const std::filesystem::path& directory) {
  return directory / "moefy" / "manifest.json";
}

std::string manifest_text(const ConversionPlan& plan, const std::filesystem::path& map_file) {
  Json json;
  json["format"] = kFormat;
  json["schema_version"] = kSchema;
  json["options"] = options_of(plan);
  json["recipe"] = plan.recipe;
  json["top_k_editable"] = plan.top_k_editable;
  json["map_digest"] = file_digest(map_file);
  json["source_fingerprint"] = plan.map->header.source_fingerprint.hex();
  json["layers"] = Json::array();
  for (const LayerResult& layer : plan.map->layers) json["layers"].push_back(layer.layer_index);
  if (plan.is_moe()) {
    const ExpertShape& shape = plan.shape;
    json["experts"] = {
        {"num_experts", shape.num_experts},   {"num_shared", shape.num_shared},
        {"expert_width", shape.expert_width}, {"shared_width", shape.shared_width},
        {"padding_neurons", shape.padding},   {"down_scale_log2", plan.routed_scale_log2}};
    json["gate_scale_log2"] = plan.gate_scale_log2;
    json["score_scale"] = Json::array();
    for (std::size_t l = 0; l < plan.results.size(); ++l)
      json["score_scale"].push_back(plan.score_factor(l));
  }
  json["originals"] = Json::array();
  for (const std::size_t tensor : plan.originals)
    json["originals"].push_back(plan.source.tensors[tensor].spec.name);
  json["source"] = Json::parse(source_to_json(plan.source));
  return json.dump(1) + "\n";
}

std::vector<std::string> manifest_differences(const std::string& there, const std::string& now) {
  std::vector<std::string> lines;
  const nlohmann::json old = nlohmann::json::parse(there, nullptr, false);
  if (old.is_discarded()) return {"its manifest is not readable"};
  add_differences("", old, nlohmann::json::parse(now), lines);
  return lines;
}

ConvertConfig read_manifest_options(const std::filesystem::path& directory) {
  return options_from(read_manifest(directory), manifest_of_output(directory));
}

std::shared_ptr<const ConversionPlan> plan_of_output(const Checkpoint& converted) {
  const std::filesystem::path& directory = converted.directory();
  const std::filesystem::path path = manifest_of_output(directory);
  const Json json = read_manifest(directory);
  const ConvertConfig config = options_from(json, path);
  if (!json.contains("source"))
    throw InputError(fmt::format("{}: no list of source tensors", path.string()));
  SourceModel source =
      source_from_json(json["source"].dump(),
                       read_text_file(directory / "moefy" / "source_config.json"), path.string());
  auto map = std::make_shared<const ExpertMap>(read_expert_map(map_of_output(directory)));
  try {
    return make_plan(std::move(source), std::move(map), config);
  } catch (const UsageError& error) {
    throw InputError(fmt::format("{}: {}", path.string(), error.what()));
  } catch (const InternalError& error) {
    throw InputError(
        fmt::format("{}: source tensors and layers disagree: {}", path.string(), error.what()));
  }
}

}  // namespace moefy
