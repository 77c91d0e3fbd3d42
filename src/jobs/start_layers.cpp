#include "start_layers.hpp"

#include <fmt/format.h>

#include "moefy/store/expert_map.hpp"
#include "moefy/store/layer_record.hpp"

namespace moefy {

namespace {

/// Only what a warm start needs, so that little travels.
LayerResult start_of(const LayerResult& old) {
  LayerResult start;
  start.layer_index = old.layer_index;
  start.name = old.name;
  start.hidden_size = old.hidden_size;
  start.partition = old.partition;
  start.prices = old.prices;
  return start;
}

}  // namespace

void StartLayers::read(const std::filesystem::path& map, std::span<const LayerInfo> layers) {
  const ExpertMap old = read_expert_map(map);
  for (const LayerInfo& layer : layers) {
    const LayerResult* found = old.find(layer.index);
    if (!found)
      throw UsageError(
          fmt::format("--init-from {}: the map has no layer {}", map.string(), layer.index));
    layers_.emplace(layer.index, start_of(*found));
  }
}

void StartLayers::tell(Communicator& comm, std::span<const LayerInfo> layers) {
  for (const LayerInfo& layer : layers) {
    std::vector<std::byte> bytes;
    if (comm.rank() == 0) bytes = encode_layer(layers_.at(layer.index));
    comm.broadcast(bytes);
    if (comm.rank() > 0)
      layers_.emplace(layer.index, decode_layer(bytes, "broadcast of --init-from"));
  }
}

const LayerResult* StartLayers::find(std::int64_t layer) const {
  const auto found = layers_.find(layer);
  return found == layers_.end() ? nullptr : &found->second;
}

}  // namespace moefy
