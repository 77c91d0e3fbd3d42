#include "calibrated_layer.hpp"

#include <algorithm>
#include <cstring>

#include "moefy/core/dtype.hpp"
#include "moefy/core/error.hpp"
#include "moefy/store/layer_record.hpp"

namespace moefy {

std::vector<std::byte> encode_calibrated(const LayerResult& result,
                                         std::span<const std::byte> down) {
  const std::vector<std::byte> record = encode_layer(result);
  const std::uint64_t length = record.size();
  std::vector<std::byte> bytes(sizeof length + record.size() + down.size());
  std::memcpy(bytes.data(), &length, sizeof length);
  std::ranges::copy(record, bytes.begin() + sizeof length);
  std::ranges::copy(down, bytes.end() - static_cast<std::ptrdiff_t>(down.size()));
  return bytes;
}

CalibratedLayer decode_calibrated(std::span<const std::byte> bytes, const std::string& place) {
  std::uint64_t length = 0;
  if (bytes.size() < sizeof length) throw InputError(place + ": cut off");
  std::memcpy(&length, bytes.data(), sizeof length);
  bytes = bytes.subspan(sizeof length);
  if (length > bytes.size()) throw InputError(place + ": cut off");
  CalibratedLayer layer{decode_layer(bytes.first(length), place), {}};
  layer.down.assign(bytes.begin() + static_cast<std::ptrdiff_t>(length), bytes.end());
  return layer;
}

const FfnTensor& down_tensor(const LayerInfo& layer) { return *layer.find(FfnRole::down); }

std::vector<std::byte> down_as_in_file(const FfnTensor& tensor, const Matrix<float>& down) {
  std::vector<float> turned;
  std::span<const float> values = down.values();
  if (!tensor.neuron_first) {
    turned.resize(values.size());
    for (std::size_t i = 0; i < down.rows(); ++i)
      for (std::size_t j = 0; j < down.cols(); ++j) turned[j * down.rows() + i] = down.row(i)[j];
    values = turned;
  }
  std::vector<std::byte> raw(values.size() * size_of(tensor.dtype));
  narrow(tensor.dtype, values, raw);
  return raw;
}

void read_down(const FfnTensor& tensor, std::span<const std::byte> raw, Matrix<float>& down) {
  if (tensor.neuron_first) return widen(tensor.dtype, raw, down.values());
  std::vector<float> turned(down.values().size());
  widen(tensor.dtype, raw, turned);
  for (std::size_t i = 0; i < down.rows(); ++i)
    for (std::size_t j = 0; j < down.cols(); ++j) down.row(i)[j] = turned[j * down.rows() + i];
}

}  // namespace moefy
