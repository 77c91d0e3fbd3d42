#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <vector>

#include "moefy/core/matrix.hpp"
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
/// Hidden activations are kept within `cache_bytes` of the backend's memory; blocks beyond are
/// computed each time.
class CalibrationTokens {
 public:
  struct Inputs {
    std::size_t first = 0;        ///< global index of the block's first token
    const BackendMatrix& inputs;  ///< [block, hidden_size]
    std::size_t size() const { return inputs.rows(); }
  };
  struct Block : Inputs {
    const BackendMatrix& hidden;  ///< [block, num_neurons]
  };

  /// All arguments must live as long as the object.
  CalibrationTokens(const FfnOnBackend& ffn, const LayerInputs& inputs, std::size_t cache_bytes);

  std::size_t num_tokens() const { return inputs_.num_tokens(); }
  const FfnLayer& layer() const { return ffn_.layer(); }
  const FfnOnBackend& ffn() const { return ffn_; }
  LinearAlgebra& algebra() const { return ffn_.algebra(); }
  ThreadPool& threads() const { return algebra().threads(); }

  /// Calls body for every block in order.
  void for_each_block(const std::function<void(const Block&)>& body);
  /// The same without hidden activations, which are not computed.
  void for_each_inputs(const std::function<void(const Inputs&)>& body);

 private:
  const FfnOnBackend& ffn_;
  const LayerInputs& inputs_;
  std::size_t cache_bytes_;
  std::vector<std::unique_ptr<BackendMatrix>> cached_;
  Matrix<float> input_scratch_;
  std::unique_ptr<BackendMatrix> block_inputs_, block_hidden_;
};

}  // namespace moefy
