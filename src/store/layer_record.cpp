#include "moefy/store/layer_record.hpp"

#include <fmt/format.h>

#include <array>
#include <utility>

#include "byte_stream.hpp"
#include "layer_rules.hpp"
#include "moefy/core/error.hpp"

namespace moefy {
namespace {

constexpr std::array<char, 4> kMagic = {'m', 'f', 'l', 'r'};
constexpr std::uint32_t kVersion = 4;

void write_matrix(ByteWriter& writer, const Matrix<float>& matrix) {
  writer.value(static_cast<std::uint64_t>(matrix.rows()));
  writer.value(static_cast<std::uint64_t>(matrix.cols()));
  writer.list(matrix.values());
}

Matrix<float> read_matrix(ByteReader& reader) {
  const auto rows = reader.value<std::uint64_t>();
  const auto cols = reader.value<std::uint64_t>();
  const auto count = reader.value<std::uint64_t>();
  std::uint64_t expected = 0;
  if (__builtin_mul_overflow(rows, cols, &expected) || expected != count) {
    throw InputError("the shape of a matrix and its values disagree");
  }
  const auto bytes = reader.next(count, sizeof(float));
  Matrix<float> matrix;
  // Zero rows of many columns would be a shape without values: nothing a layer has.
  if (count == 0) return matrix;
  matrix.resize(rows, cols);
  std::memcpy(matrix.values().data(), bytes.data(), bytes.size());
  return matrix;
}

void write_lists(ByteWriter& writer, const LayerResult& layer) {
  const NeuronLists& lists = layer.lists();
  writer.value(static_cast<std::uint8_t>(layer.sharing.has_value()));
  writer.value(static_cast<std::uint64_t>(lists.num_neurons()));
  writer.list(lists.members());
  writer.list(lists.expert_offset());
  writer.list(lists.shared_offset());
  if (!layer.sharing) writer.list(layer.partition.labels());
}

void read_lists(ByteReader& reader, LayerResult& layer) {
  const bool is_sharing = reader.value<std::uint8_t>() != 0;
  const auto num_neurons = reader.value<std::uint64_t>();
  auto members = reader.list<std::int32_t>();
  auto expert_offset = reader.list<std::int64_t>();
  auto shared_offset = reader.list<std::int64_t>();
  if (is_sharing) {
    layer.sharing = lists_from_arrays(num_neurons, std::move(members), std::move(expert_offset),
                                      std::move(shared_offset));
    return;
  }
  layer.partition = partition_from_arrays(reader.list<std::int32_t>(), std::move(members),
                                          std::move(expert_offset), std::move(shared_offset));
  if (layer.partition.num_neurons() != num_neurons)
    throw InputError("the number of neurons and their labels disagree");
}

void write_score_scale(ByteWriter& writer, const std::optional<double>& scale) {
  writer.value(static_cast<std::uint8_t>(scale.has_value()));
  if (scale) writer.value(*scale);
}

std::optional<double> read_score_scale(ByteReader& reader) {
  if (reader.value<std::uint8_t>() == 0) return std::nullopt;
  return reader.value<double>();
}

void write_router(ByteWriter& writer, const RouterWeights& router) {
  writer.text(router.kind);
  write_matrix(writer, router.weight);
  writer.list(std::span(router.bias));
  write_matrix(writer, router.output);
  writer.value(router.logit_std);
}

RouterWeights read_router(ByteReader& reader) {
  RouterWeights router;
  router.kind = reader.text();
  router.weight = read_matrix(reader);
  router.bias = reader.list<float>();
  router.output = read_matrix(reader);
  router.logit_std = reader.value<double>();
  return router;
}

using NamedValues = std::vector<std::pair<std::string, double>>;

void write_named_values(ByteWriter& writer, const NamedValues& values) {
  writer.value(static_cast<std::uint64_t>(values.size()));
  for (const auto& [name, value] : values) {
    writer.text(name);
    writer.value(value);
  }
}

NamedValues read_named_values(ByteReader& reader) {
  NamedValues values;
  // Every entry takes bytes of its own, so a hostile count ends at the end of the record.
  for (auto left = reader.value<std::uint64_t>(); left > 0; --left) {
    std::string name = reader.text();
    values.emplace_back(std::move(name), reader.value<double>());
  }
  return values;
}

void write_figures(ByteWriter& writer, const LayerResult& layer) {
  writer.value(layer.inertia);
  writer.value(layer.inertia_initial);
  writer.value(layer.inertia_random);
  writer.value(layer.inertia_unconstrained);
  writer.value(layer.duality_gap);
  writer.value(layer.cost_scale_log2);
  writer.value(layer.iterations);
  writer.value(static_cast<std::uint8_t>(layer.converged));
  writer.text(to_string(layer.stop_reason));
  writer.value(layer.fingerprint.low);
  writer.value(layer.fingerprint.high);
  writer.list(std::span(layer.inertia_trace));
  writer.list(std::span(layer.augmentations));
  writer.list(std::span(layer.surplus));
  writer.value(layer.zero_rows);
  write_named_values(writer, layer.metrics);
}

void read_figures(ByteReader& reader, LayerResult& layer) {
  layer.inertia = reader.value<double>();
  layer.inertia_initial = reader.value<double>();
  layer.inertia_random = reader.value<double>();
  layer.inertia_unconstrained = reader.value<double>();
  layer.duality_gap = reader.value<double>();
  layer.cost_scale_log2 = reader.value<std::int64_t>();
  layer.iterations = reader.value<std::int64_t>();
  layer.converged = reader.value<std::uint8_t>() != 0;
  layer.stop_reason = stop_reason_from(reader.text());
  layer.fingerprint.low = reader.value<std::uint64_t>();
  layer.fingerprint.high = reader.value<std::uint64_t>();
  layer.inertia_trace = reader.list<double>();
  layer.augmentations = reader.list<std::int64_t>();
  layer.surplus = reader.list<std::int64_t>();
  layer.zero_rows = reader.value<std::int64_t>();
  layer.metrics = read_named_values(reader);
}

LayerResult read_record(ByteReader& reader) {
  if (reader.value<std::array<char, 4>>() != kMagic) {
    throw InputError("not the record of a layer");
  }
  if (const auto version = reader.value<std::uint32_t>(); version != kVersion) {
    throw InputError(
        fmt::format("the record of a layer has version {}, expected {}: written by "
                    "another moefy",
                    version, kVersion));
  }
  LayerResult layer;
  layer.layer_index = reader.value<std::int64_t>();
  layer.hidden_size = reader.value<std::int64_t>();
  for (std::string* text :
       {&layer.name, &layer.method, &layer.weights, &layer.activation, &layer.normalize}) {
    *text = reader.text();
  }
  read_lists(reader, layer);
  layer.centroids = read_matrix(reader);
  layer.prices = reader.list<double>();
  layer.router = read_router(reader);
  layer.score_scale = read_score_scale(reader);
  read_figures(reader, layer);
  layer.seconds = read_named_values(reader);
  layer.rank = reader.value<std::int64_t>();
  return layer;
}

}  // namespace

std::vector<std::byte> encode_layer(const LayerResult& layer) {
  ByteWriter writer;
  writer.value(kMagic);
  writer.value(kVersion);
  writer.value(layer.layer_index);
  writer.value(layer.hidden_size);
  for (const std::string* text :
       {&layer.name, &layer.method, &layer.weights, &layer.activation, &layer.normalize}) {
    writer.text(*text);
  }
  write_lists(writer, layer);
  write_matrix(writer, layer.centroids);
  writer.list(std::span(layer.prices));
  write_router(writer, layer.router);
  write_score_scale(writer, layer.score_scale);
  write_figures(writer, layer);
  write_named_values(writer, layer.seconds);
  writer.value(layer.rank);
  return writer.take();
}

LayerResult decode_layer(std::span<const std::byte> bytes, const std::string& source) {
  try {
    ByteReader reader(bytes);
    LayerResult layer = read_record(reader);
    if (!reader.at_end()) throw InputError("bytes follow the record of the layer");
    if (const auto problem = find_layer_problem(layer)) throw InputError(*problem);
    return layer;
  } catch (const InputError&) {
    rethrow_with_context(source);
  }
}

}  // namespace moefy
