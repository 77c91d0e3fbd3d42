#include "conversion.hpp"

#include <algorithm>
#include <fstream>
#include <numeric>

#include "moefy/core/random.hpp"

namespace moefy::test {

namespace {

std::filesystem::path written(const TempDir& dir, const TinyModel& model, std::size_t num_shards) {
  write_checkpoint(model, dir / "dense", num_shards);
  return dir / "dense";
}

LayerResult random_layer(const Checkpoint& checkpoint, const LayerInfo& layer,
                         const MapShape& shape) {
  RandomStream stream(shape.seed, static_cast<std::uint64_t>(layer.index), RandomPurpose::bench);
  LayerResult result;
  result.layer_index = layer.index;
  result.name = layer.name;
  result.hidden_size = layer.hidden_size;
  result.method = "random";
  result.weights = "up";
  result.activation = layer.activation;
  result.normalize = "l2";
  const auto sizes =
      equal_sizes(static_cast<std::size_t>(layer.num_neurons), shape.experts + shape.shared);
  std::vector<std::int32_t> labels;
  for (std::size_t list = 0; list < sizes.size(); ++list)
    labels.insert(labels.end(), sizes[list],
                  list < shape.experts ? static_cast<std::int32_t>(list) : kSharedLabel);
  shuffle(labels, stream);
  result.partition = Partition::from_labels(std::move(labels), shape.experts, shape.shared);
  const auto hidden = static_cast<std::size_t>(layer.hidden_size);
  result.centroids.resize(shape.experts, hidden);
  result.router.kind = "centroid";
  result.router.logit_std = 1;
  result.router.weight.resize(shape.experts, hidden);
  for (float& value : result.router.weight.values()) value = stream.next_normal();
  std::ranges::copy(result.router.weight.values(), result.centroids.values().begin());
  result.prices.assign(shape.experts, 0.0);
  result.fingerprint = layer_fingerprint(checkpoint, layer);
  return result;
}

}  // namespace

ExpertMap random_map(const Checkpoint& checkpoint, const std::vector<LayerInfo>& layers,
                     const MapShape& shape) {
  ExpertMap map;
  std::vector<Digest> fingerprints;
  for (const LayerInfo& layer : layers) {
    if (shape.only_layer >= 0 && shape.only_layer != layer.index) continue;
    map.layers.push_back(random_layer(checkpoint, layer, shape));
    fingerprints.push_back(map.layers.back().fingerprint);
  }
  map.header.model_type = "test";
  map.header.architecture = "test";
  map.header.num_layers = static_cast<std::int64_t>(layers.size());
  map.header.top_k = shape.top_k;
  map.header.source_fingerprint = source_fingerprint(checkpoint, fingerprints);
  map.header.config = "{}";
  return map;
}

Conversion::Conversion(TinyModel model, const MapShape& shape, std::size_t num_shards)
    : dense_(Checkpoint::open(written(dir_, model, num_shards))),
      layers_(Architecture::detect(dense_).layers(dense_)),
      map_(std::make_shared<ExpertMap>(random_map(dense_, layers_, shape))) {
  write_expert_map(map_file(), *map_);
}

void Conversion::change_map(const std::function<void(ExpertMap&)>& change) {
  change(*map_);
  std::vector<Digest> fingerprints;
  for (const LayerResult& layer : map_->layers) fingerprints.push_back(layer.fingerprint);
  map_->header.source_fingerprint = source_fingerprint(dense_, fingerprints);
  write_expert_map(map_file(), *map_);
}

std::shared_ptr<const ConversionPlan> Conversion::plan(const ConvertConfig& config) const {
  return plan_conversion(dense_, layers_, map_, config);
}

std::shared_ptr<const ConversionPlan> Conversion::convert(const ConvertConfig& config) {
  std::filesystem::create_directories(output());
  const auto made = plan(config);
  ThreadPool pool(2);
  check_map_belongs(dense_, *map_, "map.h5");
  for (std::size_t shard = 0; shard < shards_of(*made).files.size(); ++shard)
    write_shard(*made, dense_, shard, output(), pool, {});
  write_metadata(*made, dense_, map_file(), output());
  return made;
}

std::vector<std::string> Conversion::verify() const {
  const Checkpoint converted = Checkpoint::open(output());
  const auto map = std::make_shared<const ExpertMap>(read_expert_map(map_of_output(output())));
  const auto made = plan_conversion(dense_, layers_, map, read_manifest_options(output()));
  std::vector<std::string> differences = compare_structure(*made, dense_, converted);
  ThreadPool pool(2);
  for (std::size_t shard = 0; shard < shards_of(*made).files.size(); ++shard)
    for (std::string& text : compare_shard(*made, dense_, converted, shard, pool, {}))
      differences.push_back(std::move(text));
  if (!differences.empty()) return differences;
  const auto backend = make_cpu_backend(1);
  for (std::size_t layer = 0; layer < num_layers(*made); ++layer) {
    const LayerCheck check = check_layer(*made, dense_, converted, layer, *backend, {});
    if (!check.problem.empty()) differences.push_back(check.problem);
  }
  return differences;
}

void Conversion::restore() const {
  std::filesystem::create_directories(restored());
  const Checkpoint converted = Checkpoint::open(output());
  const auto made = plan_of_output(converted);
  require_restorable(*made);
  ThreadPool pool(2);
  for (std::size_t shard = 0; shard < source_shards(*made).files.size(); ++shard)
    restore_shard(*made, converted, shard, restored(), pool, {});
  restore_metadata(*made, converted, restored());
}

std::vector<std::byte> bytes_of(const Checkpoint& checkpoint, const std::string& name) {
  const TensorInfo& info = checkpoint.at(name);
  std::vector<std::byte> bytes(info.num_bytes);
  checkpoint.read(info, 0, bytes);
  return bytes;
}

std::vector<float> values_of(const Checkpoint& checkpoint, const std::string& name) {
  const std::vector<std::byte> bytes = bytes_of(checkpoint, name);
  const DType dtype = checkpoint.at(name).dtype;
  std::vector<float> values(bytes.size() / size_of(dtype));
  widen(dtype, bytes, values);
  return values;
}

void overwrite(const Checkpoint& checkpoint, const std::string& name,
               const std::vector<std::byte>& bytes) {
  const TensorInfo& info = checkpoint.at(name);
  std::fstream file(checkpoint.directory() / checkpoint.shards()[info.shard].file_name,
                    std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(static_cast<std::streamoff>(info.offset));
  file.write(reinterpret_cast<const char*>(bytes.data()),
             static_cast<std::streamsize>(bytes.size()));
}

void flip_bit(const Checkpoint& checkpoint, const std::string& name, std::uint64_t byte) {
  std::vector<std::byte> bytes = bytes_of(checkpoint, name);
  bytes.at(byte) ^= std::byte{1};
  overwrite(checkpoint, name, bytes);
}

namespace {

TinyTensor tensor_of(const std::string& name, std::vector<std::int64_t> shape,
                     const std::vector<float>& values) {
  const auto bytes = std::as_bytes(std::span(values));
  return {name, DType::f32, std::move(shape), {bytes.begin(), bytes.end()}};
}

}  // namespace

TinyModel small_llama() {
  TinyModel model = tiny_model("llama", {2, 2, 4, DType::f32, 1});
  const std::vector<std::vector<float>> layer0 = {
      {1, 0, 0, 1, 1, 1, 1, -1}, {1, 1, 2, 0, 0, 1, 1, 0}, {1, 0, 1, 2, 0, 1, -1, 1}};
  const char* names[] = {"gate_proj", "up_proj", "down_proj"};
  for (int layer = 0; layer < 2; ++layer)
    for (int role = 0; role < 3; ++role) {
      const std::string name =
          "model.layers." + std::to_string(layer) + ".mlp." + names[role] + ".weight";
      std::vector<float> values = layer0[static_cast<std::size_t>(role)];
      // The second layer's values are ten higher, so that no layer can pass for the other.
      if (layer == 1)
        for (float& value : values) value += 10;
      std::vector<std::int64_t> shape = {4, 2};
      if (role == 2) shape = {2, 4};
      model.at(name) = tensor_of(name, shape, values);
    }
  return model;
}

}  // namespace moefy::test
