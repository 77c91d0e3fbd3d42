#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "moefy/backend/linear_algebra.hpp"
#include "moefy/backend/rows.hpp"
#include "moefy/checkpoint/checkpoint.hpp"
#include "moefy/core/hash.hpp"
#include "moefy/core/matrix.hpp"
#include "moefy/model/architecture.hpp"

namespace moefy {

/// The values of one FFN layer in fp32, in host memory; a neuron is a row of every matrix.
struct FfnLayer {
  LayerInfo info;
  Matrix<float> gate;  ///< [num_neurons, hidden_size]; empty unless the layer is gated
  Matrix<float> up;    ///< [num_neurons, hidden_size]
  Matrix<float> down;  ///< [num_neurons, hidden_size]
  std::vector<float> gate_bias, up_bias;  ///< [num_neurons] or empty
  std::vector<float> down_bias;           ///< [hidden_size] or empty; belongs to no neuron
  Digest fingerprint;

  std::size_t num_neurons() const { return up.rows(); }
  std::size_t hidden_size() const { return up.cols(); }
};

/// Fills `out` with a role's fp32 values, checked finite: [num_neurons, hidden_size] with a neuron
/// as a row, of a bias [1, its size]. A source writes to host memory, or to a device's, as whoever
/// makes it says.
using RowSource = std::function<void(FfnRole role, RowsTarget out)>;

/// The roles that make up a layer but for the output's bias, in the order in which load_ffn_layer
/// reads them.
std::vector<FfnRole> roles_of_neurons(const LayerInfo& layer);
/// The values that belong to neurons, from wherever they come; no output bias and no fingerprint.
FfnLayer load_ffn_layer(const LayerInfo& layer, const RowSource& source);
/// The rows of a loaded layer once more; `layer` must outlive the source.
RowSource rows_of(const FfnLayer& layer);

/// Reads a whole layer. InputError naming tensor, row and column of a NaN or infinity; IoError.
FfnLayer load_ffn_layer(const Checkpoint& checkpoint, const LayerInfo& layer);

/// A layer's matrices where a backend computes.
class FfnOnBackend {
 public:
  /// Both must outlive the object. InputError if the activation is not known, DeviceError.
  FfnOnBackend(const FfnLayer& layer, LinearAlgebra& algebra);

  const FfnLayer& layer() const { return layer_; }
  LinearAlgebra& algebra() const { return algebra_; }
  const BackendMatrix& down() const { return *down_; }
  /// To be called when the layer's down rows have changed.
  void renew_down() { down_->assign(layer_.down.view()); }
  /// See LinearAlgebra::ffn_hidden.
  void compute_hidden(const BackendMatrix& inputs, BackendMatrix& hidden) const;

 private:
  std::unique_ptr<BackendMatrix> copied(const Matrix<float>& matrix) const;
  std::unique_ptr<BackendMatrix> copied(const std::vector<float>& bias) const;

  const FfnLayer& layer_;
  LinearAlgebra& algebra_;
  Activation activation_;
  std::unique_ptr<BackendMatrix> gate_, up_, down_, gate_bias_, up_bias_;  ///< null where empty
};

}  // namespace moefy
