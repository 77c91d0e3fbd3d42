#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <string_view>
#include <utility>

#include "attribute_values.hpp"
#include "hdf5.hpp"
#include "layer_rules.hpp"
#include "moefy/core/error.hpp"
#include "moefy/core/file.hpp"
#include "moefy/store/expert_map.hpp"
#include "object_reader.hpp"
#include "structure_check.hpp"
#include "user_block.hpp"

namespace moefy {
namespace {

void check_format(const ObjectReader& root) {
  const std::string format = root.text("format");
  if (format != "moefy-expert-map") {
    root.fail(fmt::format("the format is '{}', expected 'moefy-expert-map'", format));
  }
  const auto schema = root.number<std::int64_t>("schema_version");
  if (schema > kExpertMapSchema) {
    root.fail(
        fmt::format("written with schema version {}, and this moefy reads up to {}: use a "
                    "moefy that knows schema version {}",
                    schema, kExpertMapSchema, schema));
  }
  if (schema < 1) root.fail(fmt::format("schema_version is {}", schema));
}

ExpertMapHeader read_header(const ObjectReader& root) {
  ExpertMapHeader header;
  header.model_type = root.text("model_type");
  header.architecture = root.text("architecture");
  header.num_layers = count_attribute(root, "num_layers");
  header.seed = root.number<std::uint64_t>("seed");
  header.top_k = count_attribute(root, "top_k");
  header.source_fingerprint = digest_attribute(root, "source_fingerprint");
  if (auto file = root.find_text("refit_file")) {
    header.refit_file = *std::move(file);
    header.refit_fingerprint = digest_attribute(root, "refit_fingerprint");
    if (header.refit_file.empty() || header.refit_file.find('/') != std::string::npos)
      root.fail(fmt::format("refit_file is '{}', expected a file name", header.refit_file));
  }
  auto config = root.find_text_dataset("config");
  if (!config) root.fail("the data set 'config' is not text");
  header.config = *std::move(config);
  return header;
}

void read_layer_attributes(const ObjectReader& reader, LayerResult& layer) {
  layer.layer_index = count_attribute(reader, "layer_index");
  layer.name = reader.text("name");
  layer.hidden_size = count_attribute(reader, "hidden_size");
  layer.method = reader.text("method");
  layer.weights = reader.text("weights");
  layer.normalize = reader.find_text("normalize").value_or("");
  layer.activation = reader.text("activation");
  layer.inertia = reader.number<double>("inertia");
  layer.inertia_initial = reader.number<double>("inertia_initial");
  layer.inertia_random = reader.number<double>("inertia_random");
  layer.duality_gap = reader.number<double>("duality_gap");
  layer.cost_scale_log2 = reader.number<std::int64_t>("cost_scale_log2");
  layer.iterations = reader.number<std::int64_t>("iterations");
  layer.converged = reader.number<std::int64_t>("converged") != 0;
  layer.stop_reason = stop_reason_from(reader.text("stop_reason"));
  layer.fingerprint = digest_attribute(reader, "fingerprint");
  if (reader.has_attribute("score_scale")) layer.score_scale = reader.number<double>("score_scale");
}

void read_lists(const ObjectReader& reader, LayerResult& layer) {
  const std::string kind = reader.text("kind");
  const bool is_sharing = kind == "sharing";
  if (!is_sharing && kind != "partition")
    reader.fail(fmt::format("the kind is '{}', expected 'partition' or 'sharing'", kind));
  const auto num_neurons = static_cast<std::size_t>(count_attribute(reader, "num_neurons"));
  const auto num_experts = static_cast<std::size_t>(count_attribute(reader, "num_experts"));
  const auto num_shared = static_cast<std::size_t>(count_attribute(reader, "num_shared"));
  auto members = is_sharing ? reader.array<std::int32_t>("members")
                            : reader.array<std::int32_t>("members", num_neurons);
  auto expert_offset = reader.array<std::int64_t>("expert_offset", num_experts + 1);
  std::vector<std::int64_t> shared_offset;
  if (num_shared > 0) {
    shared_offset = reader.array<std::int64_t>("shared_offset", num_shared + 1);
  }
  if (is_sharing) {
    layer.sharing = lists_from_arrays(num_neurons, std::move(members), std::move(expert_offset),
                                      std::move(shared_offset));
    return;
  }
  layer.partition =
      partition_from_arrays(reader.array<std::int32_t>("labels", num_neurons), std::move(members),
                            std::move(expert_offset), std::move(shared_offset));
}

RouterWeights read_router(const ObjectReader& layer_reader, std::size_t num_experts) {
  RouterWeights router;
  const auto reader = layer_reader.find_group("router");
  if (!reader || (!reader->has_link("weight") && !reader->has_link("0"))) return router;
  router.kind = reader->text("kind");
  router.logit_std = reader->number_or<double>("logit_std", 0);
  if (!reader->has_link("weight")) {
    if (reader->find_text("activation") != "tanh" ||
        reader->number_or<std::int64_t>("normalize_input", 0) != 1)
      reader->fail("a router of two layers that is not tanh on unit inputs");
    const auto layer = [&](const char* name) {
      return reader->group(name, reader->place() + "/" + name).matrix("weight", num_experts);
    };
    router.weight = layer("0");
    router.output = layer("1");
    return router;
  }
  router.weight = reader->matrix("weight", num_experts);
  if (reader->has_link("bias")) router.bias = reader->array<float>("bias", num_experts);
  return router;
}

void read_statistics(const ObjectReader& layer_reader, LayerResult& layer) {
  const auto reader = layer_reader.find_group("stats");
  if (!reader) return;
  layer.inertia_unconstrained = reader->number_or<double>("inertia_unconstrained", 0);
  layer.zero_rows = reader->number_or<std::int64_t>("zero_rows", 0);
  if (reader->has_link("inertia_trace")) {
    layer.inertia_trace = reader->array<double>("inertia_trace");
  }
  if (reader->has_link("augmentations")) {
    layer.augmentations = reader->array<std::int64_t>("augmentations");
  }
  if (reader->has_link("surplus")) layer.surplus = reader->array<std::int64_t>("surplus");
  if (const auto metrics = reader->find_group("metrics")) {
    for (const std::string& name : metrics->attributes())
      layer.metrics.emplace_back(name, metrics->number<double>(name));
  }
}

LayerResult read_layer(const ObjectReader& reader) {
  LayerResult layer;
  read_layer_attributes(reader, layer);
  read_lists(reader, layer);
  const std::size_t num_experts = layer.lists().num_experts();
  if (reader.has_link("centroids")) layer.centroids = reader.matrix("centroids", num_experts);
  if (reader.has_link("prices")) layer.prices = reader.array<double>("prices", num_experts);
  layer.router = read_router(reader, num_experts);
  read_statistics(reader, layer);
  if (const auto problem = find_layer_problem(layer)) reader.fail(*problem);
  return layer;
}

/// Groups of /layers whose name is a number, ascending by it; others are not ours to judge.
std::vector<std::pair<std::int64_t, std::string>> layer_groups(const ObjectReader& layers) {
  std::vector<std::pair<std::int64_t, std::string>> groups;
  for (std::string& name : layers.links()) {
    std::int64_t number = 0;
    const char* end = name.data() + name.size();
    const auto [stop, error] = std::from_chars(name.data(), end, number);
    if (error == std::errc() && stop == end) groups.emplace_back(number, std::move(name));
  }
  std::ranges::sort(groups);
  return groups;
}

std::vector<LayerResult> read_layers(const ObjectReader& root, std::int64_t num_layers,
                                     const std::string& file, std::string& place) {
  const ObjectReader group = root.group("layers", file + ": layers");
  std::vector<LayerResult> layers;
  for (const auto& [number, name] : layer_groups(group)) {
    place = fmt::format("{}: layer {}", file, number);
    const ObjectReader reader = group.group(name, place);
    try {
      layers.push_back(read_layer(reader));
    } catch (const hdf5::Failure&) {
      throw;
    } catch (const Error& error) {
      // The reader's own messages name the place already; those of the partition do not.
      if (std::string_view(error.what()).starts_with(place)) throw;
      rethrow_with_context(place);
    }
    const std::int64_t index = layers.back().layer_index;
    if (index != number) reader.fail(fmt::format("layer_index is {}", index));
    if (index >= num_layers) reader.fail(fmt::format("the model has {} layers", num_layers));
    if (layers.size() > 1 && layers[layers.size() - 2].layer_index == index) {
      reader.fail("two groups have this number");
    }
  }
  place = file;
  return layers;
}

void read_times(const ObjectReader& reader, RunRecord& run) {
  const auto layer_index = reader.array<std::int64_t>("layer_index");
  const auto phase = reader.text_array("phase", layer_index.size());
  const auto seconds = reader.array<double>("seconds", layer_index.size());
  std::vector<std::int64_t> rank(layer_index.size(), 0);
  if (reader.has_link("rank")) rank = reader.array<std::int64_t>("rank", layer_index.size());
  for (std::size_t i = 0; i < layer_index.size(); ++i) {
    run.times.push_back({layer_index[i], phase[i], seconds[i], rank[i]});
  }
}

RunRecord read_run(const ObjectReader& root) {
  RunRecord run;
  const auto reader = root.find_group("run");
  if (!reader) return run;
  for (const std::string& name : reader->attributes()) {
    if (auto text = reader->find_text(name)) run.attributes.emplace_back(name, *std::move(text));
  }
  for (const std::string& name : reader->links()) {
    if (name == "times") {
      read_times(reader->group(name, reader->place() + "/times"), run);
    } else if (reader->is_dataset(name)) {
      if (auto text = reader->find_text_dataset(name)) {
        run.attributes.emplace_back(name, *std::move(text));
      }
    }
  }
  std::ranges::sort(run.attributes);
  return run;
}

ExpertMap read_image(std::span<const std::byte> bytes, const std::string& file,
                     std::string& place) {
  const hdf5::Id image = hdf5::open_image(bytes);
  ReadBudget budget(bytes.size());
  const ObjectReader root(hdf5::own(H5Gopen2(image.get(), "/", H5P_DEFAULT), "H5Gopen2"), file,
                          budget);
  check_format(root);
  ExpertMap map;
  map.header = read_header(root);
  map.layers = read_layers(root, map.header.num_layers, file, place);
  map.run = read_run(root);
  return map;
}

}  // namespace

const LayerResult* ExpertMap::find(std::int64_t layer_index) const {
  const auto at = std::ranges::lower_bound(layers, layer_index, {}, &LayerResult::layer_index);
  return at != layers.end() && at->layer_index == layer_index ? &*at : nullptr;
}

ExpertMap parse_expert_map(std::span<const std::byte> bytes, const std::string& file, Log* log) {
  check_user_block(bytes, file);
  StructureInMemory in_memory(bytes);
  check_structure(in_memory, kUserBlockSize, file);
  const hdf5::SilentErrors silent;
  std::string place = file;
  try {
    return read_image(bytes, file, place);
  } catch (const hdf5::Failure& failure) {
    if (log != nullptr) log->debug(fmt::format("{}: HDF5:\n{}", place, failure.stack()));
    throw InputError(fmt::format("{}: HDF5 cannot read it: {}", place, failure.reason()));
  }
}

ExpertMap read_expert_map(const std::filesystem::path& path, Log* log) {
  const InputFile file(path);
  std::vector<std::byte> bytes(std::min<std::uint64_t>(file.size(), kUserBlockSize));
  file.read(0, bytes);
  // A file that is something else is not read to its end.
  check_magic(bytes, path.string());
  const std::size_t head = bytes.size();
  bytes.resize(file.size());
  file.read(head, std::span(bytes).subspan(head));
  return parse_expert_map(bytes, path.string(), log);
}

}  // namespace moefy
