#include <algorithm>

#include "moefy/core/error.hpp"
#include "moefy/model/architecture.hpp"

namespace moefy {

std::string to_string(FfnRole role) {
  switch (role) {
    case FfnRole::gate:
      return "gate";
    case FfnRole::up:
      return "up";
    case FfnRole::down:
      return "down";
    case FfnRole::gate_bias:
      return "gate_bias";
    case FfnRole::up_bias:
      return "up_bias";
    case FfnRole::down_bias:
      return "down_bias";
  }
  throw InternalError("unknown FFN role");
}

const FfnTensor* LayerInfo::find(FfnRole role) const {
  const auto found = std::find_if(tensors.begin(), tensors.end(),
                                  [&](const FfnTensor& tensor) { return tensor.role == role; });
  return found == tensors.end() ? nullptr : &*found;
}

std::uint64_t LayerInfo::file_bytes() const {
  std::uint64_t bytes = 0;
  for (const FfnTensor& tensor : tensors) bytes += role_bytes(*this, tensor.role);
  return bytes;
}

LayerInfo LayerInfo::part(std::int64_t first, std::int64_t count) const {
  require(first >= 0 && count >= 0 && first + count <= num_neurons, "the neurons are the layer's");
  LayerInfo layer = *this;
  layer.num_neurons = count;
  for (FfnTensor& tensor : layer.tensors)
    if (tensor.role != FfnRole::down_bias) tensor.slice_begin += first;
  return layer;
}

std::uint64_t role_bytes(const LayerInfo& layer, FfnRole role) {
  const FfnTensor* tensor = layer.find(role);
  require(tensor != nullptr, "the layer has the role");
  auto elements = static_cast<std::uint64_t>(layer.num_neurons);
  if (role == FfnRole::down_bias) elements = static_cast<std::uint64_t>(layer.hidden_size);
  if (role == FfnRole::gate || role == FfnRole::up || role == FfnRole::down)
    elements *= static_cast<std::uint64_t>(layer.hidden_size);
  return elements * size_of(tensor->dtype);
}

std::uint64_t parameter_count(const Checkpoint& checkpoint) {
  std::uint64_t count = 0;
  for (const TensorInfo& tensor : checkpoint.tensors())
    count += tensor.num_bytes / size_of(tensor.dtype);
  return count;
}

}  // namespace moefy
