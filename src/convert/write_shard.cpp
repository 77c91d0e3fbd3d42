#include <fmt/format.h>

#include "file_sink.hpp"
#include "moefy/convert/convert.hpp"
#include "moefy/core/error.hpp"
#include "plan.hpp"

namespace moefy {

namespace {

/// Converted layers whose first tensor lies in the shard: each layer is checked by one shard.
std::vector<std::size_t> layers_beginning_in(const ConversionPlan& plan, std::size_t shard) {
  std::vector<std::size_t> layers;
  std::vector<bool> seen(plan.source.layers.size(), false);
  for (std::size_t tensor = 0; tensor < plan.first_tensor[shard + 1]; ++tensor) {
    const auto* parts = std::get_if<std::vector<NeuronPart>>(&plan.tensors[tensor].recipe);
    if (!parts || seen[parts->front().layer]) continue;
    seen[parts->front().layer] = true;
    if (tensor >= plan.first_tensor[shard]) layers.push_back(parts->front().layer);
  }
  return layers;
}

void check_fingerprint(const ConversionPlan& plan, const Checkpoint& checkpoint,
                       std::size_t layer) {
  const LayerInfo& info = plan.source.layers[layer];
  const Digest found = layer_fingerprint(checkpoint, info);
  const Digest expected = plan.results[layer]->fingerprint;
  if (found != expected)
    throw InputError(fmt::format(
        "layer {} ('{}') of {} has fingerprint {}, the map was made of {}; the weights "
        "changed since, or the map is another model's: split again",
        info.index, info.name, checkpoint.directory().string(), found.hex(), expected.hex()));
}

}  // namespace

void write_shard(const ConversionPlan& plan, const Checkpoint& checkpoint, std::size_t shard,
                 const std::filesystem::path& directory, ThreadPool& pool, std::stop_token stop) {
  const std::vector<std::size_t> layers = layers_beginning_in(plan, shard);
  pool.for_each(layers.size(), [&](std::size_t i) {
    stop_point(stop);
    check_fingerprint(plan, checkpoint, layers[i]);
  });
  const ShardPlan::File& file = plan.shards.files[shard];
  SafetensorsWriter writer(directory / file.file_name, file.tensors);
  FileSink sink(writer, plan.first_tensor[shard]);
  produce_shard(plan, checkpoint, shard, Refitted::from_refit, sink, pool, stop);
  writer.finish();
}

}  // namespace moefy
