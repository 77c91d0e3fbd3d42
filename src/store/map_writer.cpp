#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "hdf5.hpp"
#include "layer_rules.hpp"
#include "moefy/core/file.hpp"
#include "moefy/store/expert_map.hpp"
#include "user_block.hpp"

namespace moefy {
namespace {

using hdf5::Id;

/// Texts up to this size are attributes, longer ones data sets: HDF5 ends attributes at 64 KiB.
constexpr std::size_t kMaxAttributeText = 32 << 10;

template <class T>
requires std::is_arithmetic_v<T>
void write_attribute(const Id& object, const char* name, T value) {
  const Id space = hdf5::space_of({});
  const Id attribute = hdf5::own(
      H5Acreate2(object.get(), name, hdf5::file_type<T>(), space.get(), H5P_DEFAULT, H5P_DEFAULT),
      "H5Acreate2");
  hdf5::check(H5Awrite(attribute.get(), hdf5::memory_type<T>(), &value), "H5Awrite");
}

void write_attribute(const Id& object, const char* name, const std::string& text) {
  const Id space = hdf5::space_of({});
  const Id type = hdf5::text_type();
  const Id attribute =
      hdf5::own(H5Acreate2(object.get(), name, type.get(), space.get(), H5P_DEFAULT, H5P_DEFAULT),
                "H5Acreate2");
  const char* pointer = text.c_str();
  hdf5::check(H5Awrite(attribute.get(), type.get(), &pointer), "H5Awrite");
}

Id make_dataset(const Id& parent, const char* name, hid_t type, std::span<const hsize_t> shape) {
  const Id creation = hdf5::own(H5Pcreate(H5P_DATASET_CREATE), "H5Pcreate");
  hdf5::check(H5Pset_obj_track_times(creation.get(), false), "H5Pset_obj_track_times");
  // Fill values would only be overwritten.
  hdf5::check(H5Pset_fill_time(creation.get(), H5D_FILL_TIME_NEVER), "H5Pset_fill_time");
  const Id space = hdf5::space_of(shape);
  return hdf5::own(
      H5Dcreate2(parent.get(), name, type, space.get(), H5P_DEFAULT, creation.get(), H5P_DEFAULT),
      "H5Dcreate2");
}

template <class T>
void write_dataset(const Id& parent, const char* name, std::span<const T> values,
                   std::span<const hsize_t> shape) {
  const Id dataset = make_dataset(parent, name, hdf5::file_type<T>(), shape);
  if (values.empty()) return;
  hdf5::check(
      H5Dwrite(dataset.get(), hdf5::memory_type<T>(), H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()),
      "H5Dwrite");
}

template <class T>
void write_vector(const Id& parent, const char* name, std::span<const T> values) {
  const hsize_t shape[] = {values.size()};
  write_dataset(parent, name, values, shape);
}

void write_matrix(const Id& parent, const char* name, const Matrix<float>& matrix) {
  const hsize_t shape[] = {matrix.rows(), matrix.cols()};
  write_dataset(parent, name, matrix.values(), shape);
}

/// Texts padded with zeros to the longest of them; shape {} is one text.
void write_texts(const Id& parent, const char* name, std::span<const std::string> texts,
                 std::span<const hsize_t> shape) {
  std::size_t width = 1;
  for (const std::string& text : texts) width = std::max(width, text.size());
  std::string padded(width * texts.size(), '\0');
  for (std::size_t i = 0; i < texts.size(); ++i) {
    std::ranges::copy(texts[i], padded.begin() + static_cast<std::ptrdiff_t>(i * width));
  }
  const Id type = hdf5::text_type(width);
  const Id dataset = make_dataset(parent, name, type.get(), shape);
  if (texts.empty()) return;
  hdf5::check(H5Dwrite(dataset.get(), type.get(), H5S_ALL, H5S_ALL, H5P_DEFAULT, padded.data()),
              "H5Dwrite");
}

void write_text(const Id& parent, const char* name, const std::string& text) {
  write_texts(parent, name, std::span(&text, 1), {});
}

void write_header(const Id& root, const ExpertMapHeader& header) {
  write_attribute(root, "format", std::string("moefy-expert-map"));
  write_attribute(root, "schema_version", std::int64_t{kExpertMapSchema});
  write_attribute(root, "model_type", header.model_type);
  write_attribute(root, "architecture", header.architecture);
  write_attribute(root, "num_layers", header.num_layers);
  write_attribute(root, "seed", header.seed);
  write_attribute(root, "top_k", header.top_k);
  write_attribute(root, "source_fingerprint", header.source_fingerprint.hex());
  if (!header.refit_file.empty()) {
    write_attribute(root, "refit_file", header.refit_file);
    write_attribute(root, "refit_fingerprint", header.refit_fingerprint.hex());
  }
  write_text(root, "config", header.config);
}

void write_layer_attributes(const Id& group, const LayerResult& layer) {
  const NeuronLists& lists = layer.lists();
  write_attribute(group, "layer_index", layer.layer_index);
  write_attribute(group, "name", layer.name);
  write_attribute(group, "num_neurons", static_cast<std::int64_t>(lists.num_neurons()));
  write_attribute(group, "hidden_size", layer.hidden_size);
  write_attribute(group, "num_experts", static_cast<std::int64_t>(lists.num_experts()));
  write_attribute(group, "num_shared", static_cast<std::int64_t>(lists.num_shared()));
  write_attribute(group, "kind", std::string(layer.sharing ? "sharing" : "partition"));
  write_attribute(group, "method", layer.method);
  write_attribute(group, "weights", layer.weights);
  write_attribute(group, "normalize", layer.normalize);
  write_attribute(group, "activation", layer.activation);
  write_attribute(group, "inertia", layer.inertia);
  write_attribute(group, "inertia_initial", layer.inertia_initial);
  write_attribute(group, "inertia_random", layer.inertia_random);
  write_attribute(group, "duality_gap", layer.duality_gap);
  write_attribute(group, "cost_scale_log2", layer.cost_scale_log2);
  write_attribute(group, "iterations", layer.iterations);
  write_attribute(group, "converged", std::int64_t{layer.converged});
  write_attribute(group, "stop_reason", to_string(layer.stop_reason));
  write_attribute(group, "fingerprint", layer.fingerprint.hex());
  if (layer.score_scale) write_attribute(group, "score_scale", *layer.score_scale);
}

void write_router(const Id& layer_group, const RouterWeights& router) {
  if (router.weight.rows() == 0) return;
  const Id group = hdf5::make_group(layer_group, "router");
  write_attribute(group, "kind", router.kind);
  write_attribute(group, "logit_std", router.logit_std);
  if (router.output.rows() > 0) {
    write_attribute(group, "activation", std::string("tanh"));
    write_attribute(group, "normalize_input", std::int64_t{1});
    write_matrix(hdf5::make_group(group, "0"), "weight", router.weight);
    write_matrix(hdf5::make_group(group, "1"), "weight", router.output);
    return;
  }
  write_matrix(group, "weight", router.weight);
  if (!router.bias.empty()) write_vector<float>(group, "bias", router.bias);
}

void write_statistics(const Id& layer_group, const LayerResult& layer) {
  const Id group = hdf5::make_group(layer_group, "stats");
  write_attribute(group, "inertia_unconstrained", layer.inertia_unconstrained);
  write_attribute(group, "zero_rows", layer.zero_rows);
  std::vector<std::int64_t> sizes(layer.lists().num_experts());
  for (std::size_t expert = 0; expert < sizes.size(); ++expert) {
    sizes[expert] = static_cast<std::int64_t>(layer.lists().expert_members(expert).size());
  }
  write_vector<std::int64_t>(group, "sizes", sizes);
  write_vector<double>(group, "inertia_trace", layer.inertia_trace);
  write_vector<std::int64_t>(group, "augmentations", layer.augmentations);
  write_vector<std::int64_t>(group, "surplus", layer.surplus);
  if (layer.metrics.empty()) return;
  const Id metrics = hdf5::make_group(group, "metrics");
  for (const auto& [name, value] : layer.metrics) write_attribute(metrics, name.c_str(), value);
}

void write_layer(const Id& layers, const LayerResult& layer) {
  const Id group = hdf5::make_group(layers, fmt::format("{:05}", layer.layer_index));
  write_layer_attributes(group, layer);
  if (!layer.sharing) write_vector(group, "labels", layer.partition.labels());
  const NeuronLists& lists = layer.lists();
  write_vector(group, "members", lists.members());
  write_vector(group, "expert_offset", lists.expert_offset());
  if (lists.num_shared() > 0) write_vector(group, "shared_offset", lists.shared_offset());
  if (layer.centroids.rows() > 0) write_matrix(group, "centroids", layer.centroids);
  if (!layer.prices.empty()) write_vector<double>(group, "prices", layer.prices);
  write_router(group, layer.router);
  write_statistics(group, layer);
}

void write_times(const Id& run, std::span<const RunRecord::LayerTime> times) {
  std::vector<std::int64_t> layer_index;
  std::vector<std::string> phase;
  std::vector<double> seconds;
  std::vector<std::int64_t> rank;
  for (const auto& time : times) {
    layer_index.push_back(time.layer_index);
    phase.push_back(time.phase);
    seconds.push_back(time.seconds);
    rank.push_back(time.rank);
  }
  const Id group = hdf5::make_group(run, "times");
  const hsize_t shape[] = {times.size()};
  write_vector<std::int64_t>(group, "layer_index", layer_index);
  write_texts(group, "phase", phase, shape);
  write_vector<double>(group, "seconds", seconds);
  write_vector<std::int64_t>(group, "rank", rank);
}

void write_run(const Id& root, const RunRecord& run) {
  const Id group = hdf5::make_group(root, "run");
  // Readers get them back in the order of their names, so that is the order they are written in.
  auto attributes = run.attributes;
  std::ranges::sort(attributes);
  for (const auto& [name, text] : attributes) {
    if (text.size() <= kMaxAttributeText) {
      write_attribute(group, name.c_str(), text);
    } else {
      write_text(group, name.c_str(), text);
    }
  }
  if (!run.times.empty()) write_times(group, run.times);
}

void require_consistent(const ExpertMap& map) {
  for (std::size_t i = 0; i < map.layers.size(); ++i) {
    const LayerResult& layer = map.layers[i];
    if (const auto problem = find_layer_problem(layer)) {
      throw InternalError(fmt::format("layer {}: {}", layer.layer_index, *problem));
    }
    layer.sharing ? layer.sharing->verify() : layer.partition.verify();
    require(i == 0 || map.layers[i - 1].layer_index < layer.layer_index,
            "the layers of an expert map ascend");
  }
}

}  // namespace

std::vector<std::byte> expert_map_bytes(const ExpertMap& map) {
  require_consistent(map);
  const hdf5::SilentErrors silent;
  const Id file = hdf5::create_image(kUserBlockSize);
  {
    const Id root = hdf5::own(H5Gopen2(file.get(), "/", H5P_DEFAULT), "H5Gopen2");
    write_header(root, map.header);
    const Id layers = hdf5::make_group(root, "layers");
    for (const LayerResult& layer : map.layers) write_layer(layers, layer);
    if (!map.run.empty()) write_run(root, map.run);
  }
  std::vector<std::byte> bytes = hdf5::image_of(file, kUserBlockSize);
  seal_user_block(bytes);
  return bytes;
}

void write_expert_map(const std::filesystem::path& path, const ExpertMap& map) {
  write_file_atomically(path, std::span<const std::byte>(expert_map_bytes(map)));
}

}  // namespace moefy
