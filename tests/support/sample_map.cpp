#include "support/sample_map.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "moefy/core/random.hpp"

namespace moefy::test {
namespace {

constexpr std::uint64_t kSeed = 20240607;

Partition sample_partition(const SampleShape& shape, RandomStream& stream) {
  std::vector<std::int32_t> labels;
  const std::size_t num_lists = shape.num_experts + shape.num_shared;
  const auto sizes = equal_sizes(shape.num_neurons, num_lists);
  for (std::size_t list = 0; list < num_lists; ++list) {
    const bool is_shared = list >= shape.num_experts;
    labels.insert(labels.end(), sizes[list],
                  is_shared ? kSharedLabel : static_cast<std::int32_t>(list));
  }
  shuffle(labels, stream);
  return Partition::from_labels(std::move(labels), shape.num_experts, shape.num_shared);
}

void fill_centroids(LayerResult& layer, std::size_t dim, RandomStream& stream) {
  layer.centroids.resize(layer.partition.num_experts(), dim);
  for (std::size_t expert = 0; expert < layer.centroids.rows(); ++expert) {
    // Norms of 0.3 to 0.7: experts of unit rows that agree more or less.
    const double target = 0.3 + 0.4 * stream.next_unit();
    double square = 0;
    for (float& value : layer.centroids.row(expert)) {
      value = stream.next_normal();
      square += double{value} * value;
    }
    const double scale = target / std::sqrt(square);
    for (float& value : layer.centroids.row(expert)) {
      value = static_cast<float>(value * scale);
    }
  }
}

void fill_router(LayerResult& layer) {
  layer.router.kind = "centroid";
  layer.router.logit_std = 0.0625;
  layer.router.weight.resize(layer.centroids.rows(), layer.centroids.cols());
  std::ranges::copy(layer.centroids.values(), layer.router.weight.values().begin());
}

void fill_trace(LayerResult& layer, RandomStream& stream) {
  layer.iterations = 8 + static_cast<std::int64_t>(stream.next_below(20));
  const double drop = layer.inertia_random * 0.04;
  for (std::int64_t i = 0; i < layer.iterations; ++i) {
    const double t = static_cast<double>(i);
    layer.inertia_trace.push_back(layer.inertia + drop * std::exp(-0.5 * t));
    layer.augmentations.push_back(static_cast<std::int64_t>(200 * std::exp(-0.6 * t)));
    layer.surplus.push_back(static_cast<std::int64_t>(150 * std::exp(-0.6 * t)));
  }
  layer.inertia_trace.back() = layer.inertia;
  layer.inertia_initial = layer.inertia_trace.front();
}

LayerResult sample_layer(std::int64_t index, const SampleShape& shape) {
  RandomStream stream(kSeed, static_cast<std::uint64_t>(index), RandomPurpose::bench);
  LayerResult layer;
  layer.layer_index = index;
  layer.name = fmt::format("model.layers.{}.mlp", index);
  layer.hidden_size = static_cast<std::int64_t>(shape.hidden_size);
  layer.method = "kmeans";
  layer.weights = "gate";
  layer.activation = "silu";
  layer.normalize = "l2";
  layer.partition = sample_partition(shape, stream);
  fill_centroids(layer, shape.hidden_size, stream);
  fill_router(layer);
  for (std::size_t expert = 0; expert < shape.num_experts; ++expert) {
    layer.prices.push_back(std::ldexp(static_cast<double>(stream.next_below(1 << 20)), -25));
  }
  layer.inertia_random = 0.985 * static_cast<double>(shape.num_neurons);
  layer.inertia = layer.inertia_random * (0.80 + 0.15 * stream.next_unit());
  layer.inertia_unconstrained = layer.inertia / (1.001 + 0.02 * stream.next_unit());
  layer.cost_scale_log2 = 25;
  layer.stop_reason = StopReason::fixpoint;
  layer.fingerprint = {0x0123456789abcdef + static_cast<std::uint64_t>(index), 0xfedcba98};
  fill_trace(layer, stream);
  layer.metrics = {{"lost_energy_first", 2.5}, {"output_error", 0.125}};
  layer.seconds = {{"read", 0.25}, {"cluster", 1.5}};
  layer.rank = index % 2;
  return layer;
}

}  // namespace

ExpertMap sample_map(const SampleShape& shape) {
  ExpertMap map;
  map.header.model_type = "llama";
  map.header.architecture = "llama";
  map.header.num_layers = shape.num_layers;
  map.header.seed = 0xffffffffffffffff;
  map.header.source_fingerprint = {1, 2};
  map.header.config = R"({"experts": 4, "method": "kmeans", "note": "größe"})";
  for (std::int64_t index = 0; index < shape.num_layers; ++index) {
    map.layers.push_back(sample_layer(index, shape));
    const LayerResult& layer = map.layers.back();
    for (const auto& [phase, seconds] : layer.seconds) {
      map.run.times.push_back({index, phase, seconds, layer.rank});
    }
  }
  map.run.attributes = {{"command_line", "moefy split tiny -o map.h5 --experts 4"},
                        {"moefy_version", "0.1.0"}};
  return map;
}

}  // namespace moefy::test
