#pragma once

#include "moefy/backend/backend.hpp"
#include "moefy/core/random.hpp"
#include "moefy/model/calibration_tokens.hpp"

namespace moefy::test {

/// Inputs of a layer that are simply there.
class FixedInputs : public LayerInputs {
 public:
  explicit FixedInputs(Matrix<float> values) : values_(std::move(values)) {}
  std::size_t num_tokens() const override { return values_.rows(); }
  MatrixView<const float> rows(std::size_t first, std::size_t count,
                               Matrix<float>& /*scratch*/) const override {
    return {values_.values().data() + first * values_.cols(), count, values_.cols()};
  }

 private:
  Matrix<float> values_;
};

/// Inputs and hidden activations of a layer on a CPU backend of their own.
class TokensOnCpu {
 public:
  /// Both must outlive the object.
  TokensOnCpu(const FfnLayer& layer, const LayerInputs& inputs,
              std::size_t cache_bytes = std::size_t{1} << 20, std::size_t num_threads = 1)
      : backend_(make_cpu_backend(num_threads)),
        ffn_(layer, backend_->algebra()),
        tokens_(ffn_, inputs, cache_bytes) {}
  CalibrationTokens& operator*() { return tokens_; }
  CalibrationTokens* operator->() { return &tokens_; }
  LinearAlgebra& algebra() { return backend_->algebra(); }
  Backend& backend() { return *backend_; }

 private:
  std::unique_ptr<Backend> backend_;
  FfnOnBackend ffn_;
  CalibrationTokens tokens_;
};

/// `values`, which must stay, where `algebra` computes.
inline std::unique_ptr<BackendMatrix> on_backend(LinearAlgebra& algebra,
                                                 const Matrix<float>& values) {
  std::unique_ptr<BackendMatrix> matrix = algebra.make_matrix();
  matrix->assign(values.view());
  return matrix;
}

/// What a matrix holds, for the host to look at.
inline MatrixView<const float> read(const std::unique_ptr<BackendMatrix>& matrix) {
  return std::as_const(*matrix).on_host();
}

template <class T>
Matrix<T> matrix_of(std::size_t rows, std::size_t cols, const std::vector<T>& values) {
  Matrix<T> matrix(rows, cols);
  std::ranges::copy(values, matrix.values().begin());
  return matrix;
}

inline Matrix<float> identity(std::size_t size) {
  Matrix<float> matrix(size, size);
  for (std::size_t i = 0; i < size; ++i)
    for (std::size_t j = 0; j < size; ++j) matrix.row(i)[j] = i == j ? 1.0F : 0.0F;
  return matrix;
}

inline Matrix<float> random_matrix(std::size_t rows, std::size_t cols, std::uint64_t seed) {
  Matrix<float> matrix(rows, cols);
  RandomStream stream(seed, 0, RandomPurpose::verification);
  for (float& value : matrix.values()) value = stream.next_normal();
  return matrix;
}

/// A layer without gate: up and down [num_neurons, hidden_size].
inline FfnLayer plain_layer(Matrix<float> up, Matrix<float> down, const std::string& activation) {
  FfnLayer layer;
  layer.info.activation = activation;
  layer.info.num_neurons = static_cast<std::int64_t>(up.rows());
  layer.info.hidden_size = static_cast<std::int64_t>(up.cols());
  for (const FfnRole role : {FfnRole::up, FfnRole::down})
    layer.info.tensors.push_back({role, "t", role != FfnRole::down, 0, 0, DType::f32});
  layer.up = std::move(up);
  layer.down = std::move(down);
  return layer;
}

}  // namespace moefy::test
