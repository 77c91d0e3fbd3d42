#include <cstring>

#include "moefy/core/error.hpp"
#include "moefy/model/architecture.hpp"

namespace moefy {

namespace {

/// Appends little-endian numbers and counted texts; every host of a job has the same byte order.
class WireWriter {
 public:
  void number(std::int64_t value) {
    const auto bytes = std::as_bytes(std::span(&value, 1));
    bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
  }
  void text(const std::string& value) {
    number(static_cast<std::int64_t>(value.size()));
    const auto bytes = std::as_bytes(std::span(value));
    bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
  }
  std::vector<std::byte> take() { return std::move(bytes_); }

 private:
  std::vector<std::byte> bytes_;
};

class WireReader {
 public:
  explicit WireReader(std::span<const std::byte> bytes) : bytes_(bytes) {}

  std::int64_t number() {
    std::int64_t value = 0;
    std::memcpy(&value, take(sizeof value).data(), sizeof value);
    return value;
  }
  /// A number from 0 to `limit`.
  std::int64_t number_up_to(std::int64_t limit) {
    const std::int64_t value = number();
    if (value < 0 || value > limit) fail();
    return value;
  }
  /// Every counted item takes at least one byte, which bounds the count before anything is
  /// allocated.
  std::size_t count() {
    return static_cast<std::size_t>(number_up_to(static_cast<std::int64_t>(bytes_.size())));
  }
  std::string text() {
    const auto bytes = take(count());
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }
  bool empty() const { return bytes_.empty(); }

  [[noreturn]] static void fail() {
    throw CommError(
        "the list of layers from rank 0 cannot be read; do all ranks run the same moefy?");
  }

 private:
  std::span<const std::byte> take(std::size_t size) {
    if (size > bytes_.size()) fail();
    const auto taken = bytes_.first(size);
    bytes_ = bytes_.subspan(size);
    return taken;
  }

  std::span<const std::byte> bytes_;
};

void write_tensor(WireWriter& writer, const FfnTensor& tensor) {
  writer.number(static_cast<std::int64_t>(tensor.role));
  writer.text(tensor.tensor);
  writer.number(tensor.neuron_first ? 1 : 0);
  writer.number(tensor.slice_begin);
  writer.number(tensor.slice_total);
  writer.text(std::string(name_of(tensor.dtype)));
}

FfnTensor read_tensor(WireReader& reader) {
  FfnTensor tensor;
  tensor.role =
      static_cast<FfnRole>(reader.number_up_to(static_cast<std::int64_t>(FfnRole::down_bias)));
  tensor.tensor = reader.text();
  tensor.neuron_first = reader.number_up_to(1) == 1;
  tensor.slice_begin = reader.number();
  tensor.slice_total = reader.number();
  const auto dtype = dtype_from_name(reader.text());
  if (!dtype) WireReader::fail();
  tensor.dtype = *dtype;
  return tensor;
}

LayerInfo read_layer(WireReader& reader) {
  LayerInfo layer;
  layer.index = reader.number();
  layer.stack = reader.text();
  layer.index_in_stack = reader.number();
  layer.name = reader.text();
  layer.num_neurons = reader.number();
  layer.num_neurons_key = reader.text();
  layer.hidden_size = reader.number();
  layer.activation = reader.text();
  const std::size_t count = reader.count();
  for (std::size_t i = 0; i < count; ++i) layer.tensors.push_back(read_tensor(reader));
  return layer;
}

}  // namespace

std::vector<std::byte> serialize(std::span<const LayerInfo> layers) {
  WireWriter writer;
  writer.number(static_cast<std::int64_t>(layers.size()));
  for (const LayerInfo& layer : layers) {
    writer.number(layer.index);
    writer.text(layer.stack);
    writer.number(layer.index_in_stack);
    writer.text(layer.name);
    writer.number(layer.num_neurons);
    writer.text(layer.num_neurons_key);
    writer.number(layer.hidden_size);
    writer.text(layer.activation);
    writer.number(static_cast<std::int64_t>(layer.tensors.size()));
    for (const FfnTensor& tensor : layer.tensors) write_tensor(writer, tensor);
  }
  return writer.take();
}

std::vector<LayerInfo> deserialize_layers(std::span<const std::byte> bytes) {
  WireReader reader(bytes);
  const std::size_t count = reader.count();
  std::vector<LayerInfo> layers;
  for (std::size_t i = 0; i < count; ++i) layers.push_back(read_layer(reader));
  if (!reader.empty()) WireReader::fail();
  return layers;
}

}  // namespace moefy
