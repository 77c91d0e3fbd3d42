#pragma once

#include <functional>
#include <vector>

#include "moefy/backend/rows.hpp"
#include "moefy/checkpoint/checkpoint.hpp"
#include "moefy/core/hash.hpp"
#include "moefy/core/matrix.hpp"
#include "moefy/core/thread_pool.hpp"
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

/// hidden [T, num_neurons] = act(inputs · gateᵀ) * (inputs · upᵀ), or act(inputs · upᵀ) where there
/// is no gate; biases added before. inputs [T, hidden_size]; `scratch` grows to the size of hidden
/// for gated layers.
void ffn_hidden(const FfnLayer& layer, MatrixView<const float> inputs, MatrixView<float> hidden,
                Matrix<float>& scratch, ThreadPool& threads);

/// Norms of the experts' outputs without forming them: out[t, e] = ‖Σ_{i in expert e} hidden[t, i]
/// · down_i‖ by the Gram matrix of each expert's down rows. Keeps the Gram matrices; one object per
/// partition.
class ExpertNorms {
 public:
  /// `members`: the neurons of each expert.
  ExpertNorms(const FfnLayer& layer, std::vector<std::vector<std::int32_t>> members,
              ThreadPool& threads);
  /// hidden [T, num_neurons], out [T, num_experts].
  void compute(MatrixView<const float> hidden, MatrixView<float> out, ThreadPool& threads) const;

 private:
  std::vector<std::vector<std::int32_t>> members_;
  std::vector<Matrix<float>> gram_;  ///< by expert: K = down_e · down_eᵀ
};

}  // namespace moefy
