#include "moefy/jobs/model_source.hpp"

#include <nlohmann/json.hpp>

#include "moefy/core/hash.hpp"
#include "moefy/core/utf8.hpp"

namespace moefy {

ModelSource open_model(const std::string& model, const std::string& architecture_file) {
  std::vector<Architecture> extra;
  if (!architecture_file.empty())
    extra.push_back(
        Architecture::from_json(read_text_file(architecture_file, 1u << 20), architecture_file));
  Checkpoint checkpoint = Checkpoint::open(resolve_model(model));
  Architecture architecture = Architecture::detect(checkpoint, extra);
  std::vector<LayerInfo> layers = architecture.layers(checkpoint);
  return {std::move(checkpoint), std::move(architecture), std::move(layers)};
}

std::string file_identity_json(const Checkpoint& checkpoint) {
  const auto text_hash = [](const std::string& text) {
    return hash_bytes(std::as_bytes(std::span(text))).hex();
  };
  nlohmann::json identity;
  identity["config.json"] = text_hash(checkpoint.config_text());
  for (const Shard& shard : checkpoint.shards()) {
    identity[valid_utf8(shard.file_name)] = {{"bytes", shard.file_size},
                                             {"header", text_hash(shard.header)}};
  }
  return identity.dump();
}

}  // namespace moefy
