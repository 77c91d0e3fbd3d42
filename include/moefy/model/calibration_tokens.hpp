#pragma once

#include <cstddef>
#include <functional>
#include <vector>

#include "moefy/core/matrix.hpp"
#include "moefy/core/thread_pool.hpp"
#include "moefy/model/ffn_layer.hpp"

namespace moefy {

/// Sums over tokens are made of blocks of this many by global index, added in index order in fp64.
inline constexpr std::size_t kTokenBlock = 4096;

/// What a layer was given on the calibration tokens, wherever it lies.
class LayerInputs {
 public:
  virtual ~LayerInputs() = default;
  virtual std::size_t num_tokens() const = 0;
  /// Rows first .. first + count of the inputs [num_tokens, hidden_size]: a view of memory that
  /// stays, or of `scratch`.
  virtual MatrixView<const float> rows(std::size_t first, std::size_t count,
                                       Matrix<float>& scratch) const = 0;
};

/// Inputs and hidden activations of a layer, block by block, as often as they are asked for.
/// Hidden activations are kept within `cache_bytes`; blocks beyond are computed each time.
class CalibrationTokens {
 public:
  struct Block {
    std::size_t first = 0;           ///< global index of its first token
    MatrixView<const float> inputs;  ///< [block, hidden_size]
    MatrixView<const float> hidden;  ///< [block, num_neurons]
  };

  /// All arguments must live as long as the object.
  CalibrationTokens(const FfnLayer& layer, const LayerInputs& inputs, std::size_t cache_bytes,
                    ThreadPool& threads);

  std::size_t num_tokens() const { return inputs_.num_tokens(); }
  const FfnLayer& layer() const { return layer_; }
  ThreadPool& threads() const { return threads_; }

  /// Calls body for every block in order.
  void for_each_block(const std::function<void(const Block&)>& body);

 private:
  const FfnLayer& layer_;
  const LayerInputs& inputs_;
  std::size_t cache_bytes_;
  ThreadPool& threads_;
  std::vector<Matrix<float>> cached_;
  Matrix<float> input_scratch_, hidden_scratch_, factor_scratch_;
};

/// Σ_j rows[i, j]² of each row i, in fp64.
std::vector<double> squared_row_norms(MatrixView<const float> rows, ThreadPool& threads);

}  // namespace moefy
