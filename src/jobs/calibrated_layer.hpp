#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "moefy/model/architecture.hpp"
#include "moefy/partition/layer_result.hpp"

namespace moefy {

/// What is fitted to a layer, as the journal of a calibration keeps it.
struct CalibratedLayer {
  LayerResult result;
  std::vector<std::byte> down;  ///< as the tensor lies in the file; empty without a refit
};

/// The bytes of one journal record, and back; `place` names it in the InputError for damaged ones.
std::vector<std::byte> encode_calibrated(const LayerResult& result,
                                         std::span<const std::byte> down);
CalibratedLayer decode_calibrated(std::span<const std::byte> bytes, const std::string& place);

const FfnTensor& down_tensor(const LayerInfo& layer);
/// Bytes of down rows [num_neurons, hidden_size] as the tensor lies in the file.
std::vector<std::byte> down_as_in_file(const FfnTensor& tensor, const Matrix<float>& down);
/// The reverse; `down` has its shape.
void read_down(const FfnTensor& tensor, std::span<const std::byte> raw, Matrix<float>& down);

}  // namespace moefy
