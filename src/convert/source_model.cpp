#include "source_model.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <numeric>

#include "moefy/core/error.hpp"

namespace moefy {

namespace {

using Json = nlohmann::ordered_json;

constexpr FfnRole kRoles[] = {FfnRole::gate,      FfnRole::up,      FfnRole::down,
                              FfnRole::gate_bias, FfnRole::up_bias, FfnRole::down_bias};

FfnRole role_from(const std::string& name) {
  for (const FfnRole role : kRoles)
    if (to_string(role) == name) return role;
  throw InputError(fmt::format("unknown FFN role '{}'", name));
}

DType dtype_from(const std::string& name) {
  const std::optional<DType> dtype = dtype_from_name(name);
  if (!dtype) throw InputError(fmt::format("unknown dtype '{}'", name));
  return *dtype;
}

Json layer_to_json(const LayerInfo& layer) {
  Json json = {{"index", layer.index},
               {"stack", layer.stack},
               {"index_in_stack", layer.index_in_stack},
               {"name", layer.name},
               {"num_neurons", layer.num_neurons},
               {"num_neurons_key", layer.num_neurons_key},
               {"hidden_size", layer.hidden_size},
               {"activation", layer.activation}};
  for (const FfnTensor& tensor : layer.tensors)
    json["tensors"].push_back({{"role", to_string(tensor.role)},
                               {"tensor", tensor.tensor},
                               {"neuron_first", tensor.neuron_first},
                               {"slice_begin", tensor.slice_begin},
                               {"slice_total", tensor.slice_total},
                               {"dtype", name_of(tensor.dtype)}});
  return json;
}

LayerInfo layer_from_json(const Json& json) {
  LayerInfo layer;
  layer.index = json.at("index");
  layer.stack = json.at("stack");
  layer.index_in_stack = json.at("index_in_stack");
  layer.name = json.at("name");
  layer.num_neurons = json.at("num_neurons");
  layer.num_neurons_key = json.value("num_neurons_key", "");
  layer.hidden_size = json.at("hidden_size");
  layer.activation = json.at("activation");
  for (const Json& entry : json.at("tensors")) {
    FfnTensor tensor;
    tensor.role = role_from(entry.at("role"));
    tensor.tensor = entry.at("tensor");
    tensor.neuron_first = entry.at("neuron_first");
    tensor.slice_begin = entry.at("slice_begin");
    tensor.slice_total = entry.at("slice_total");
    tensor.dtype = dtype_from(entry.at("dtype"));
    layer.tensors.push_back(std::move(tensor));
  }
  return layer;
}

/// Tensors by name; the files' lists are renumbered with them.
void sort_tensors(SourceModel& source) {
  std::vector<std::size_t> order(source.tensors.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::sort(order, {}, [&](std::size_t i) { return source.tensors[i].spec.name; });
  std::vector<std::size_t> position(order.size());
  std::vector<SourceModel::Tensor> sorted;
  sorted.reserve(order.size());
  for (std::size_t i = 0; i < order.size(); ++i) {
    position[order[i]] = i;
    sorted.push_back(std::move(source.tensors[order[i]]));
  }
  source.tensors = std::move(sorted);
  for (SourceModel::File& file : source.files)
    for (std::size_t& tensor : file.tensors) tensor = position[tensor];
}

}  // namespace

std::ptrdiff_t SourceModel::find(std::string_view name) const {
  const auto place = std::ranges::lower_bound(
      tensors, name, {}, [](const Tensor& tensor) { return std::string_view(tensor.spec.name); });
  if (place == tensors.end() || place->spec.name != name) return -1;
  return place - tensors.begin();
}

std::size_t SourceModel::at(std::string_view name) const {
  const std::ptrdiff_t index = find(name);
  if (index < 0) throw InternalError(fmt::format("no source tensor '{}'", name));
  return static_cast<std::size_t>(index);
}

SourceModel describe_source(const Checkpoint& checkpoint, std::vector<LayerInfo> layers) {
  SourceModel source;
  source.config_text = checkpoint.config_text();
  source.layers = std::move(layers);
  for (const Shard& shard : checkpoint.shards())
    source.files.push_back({shard.file_name, shard.metadata, {}});
  for (const TensorInfo& tensor : checkpoint.tensors()) {
    source.files[tensor.shard].tensors.push_back(source.tensors.size());
    source.tensors.push_back({{tensor.name, tensor.dtype, tensor.shape}, tensor.shard});
  }
  const std::span<const TensorInfo> infos = checkpoint.tensors();
  for (SourceModel::File& file : source.files)
    std::ranges::sort(file.tensors, {}, [&](std::size_t i) {
      return std::pair(infos[i].offset, infos[i].num_bytes);
    });
  sort_tensors(source);
  return source;
}

std::string source_to_json(const SourceModel& source) {
  Json json;
  json["files"] = Json::array();
  for (const SourceModel::File& file : source.files) {
    Json entry = {{"name", file.name}, {"metadata", file.metadata}, {"tensors", Json::array()}};
    for (const std::size_t index : file.tensors) {
      const TensorSpec& spec = source.tensors[index].spec;
      entry["tensors"].push_back(
          {{"name", spec.name}, {"dtype", name_of(spec.dtype)}, {"shape", spec.shape}});
    }
    json["files"].push_back(std::move(entry));
  }
  json["layers"] = Json::array();
  for (const LayerInfo& layer : source.layers) json["layers"].push_back(layer_to_json(layer));
  return json.dump();
}

SourceModel source_from_json(const std::string& text, std::string config_text,
                             const std::string& file) {
  try {
    const Json json = Json::parse(text);
    SourceModel source;
    source.config_text = std::move(config_text);
    for (const Json& entry : json.at("files")) {
      SourceModel::File part{entry.at("name"), {}, {}};
      // A name is a plain file name: a manifest must not make moefy write elsewhere.
      if (part.name.empty() || part.name.find('/') != std::string::npos || part.name[0] == '.')
        throw InputError(fmt::format("bad file name '{}'", part.name));
      for (const auto& [key, value] : entry.at("metadata").items()) part.metadata[key] = value;
      for (const Json& tensor : entry.at("tensors")) {
        part.tensors.push_back(source.tensors.size());
        TensorSpec spec{tensor.at("name"), dtype_from(tensor.at("dtype")),
                        tensor.at("shape").get<std::vector<std::int64_t>>()};
        source.tensors.push_back({std::move(spec), source.files.size()});
      }
      source.files.push_back(std::move(part));
    }
    for (const Json& layer : json.at("layers")) source.layers.push_back(layer_from_json(layer));
    sort_tensors(source);
    return source;
  } catch (const nlohmann::json::exception& error) {
    throw InputError(fmt::format("{}: {}", file, error.what()));
  } catch (const Error&) {
    rethrow_with_context(file);
  }
}

}  // namespace moefy
