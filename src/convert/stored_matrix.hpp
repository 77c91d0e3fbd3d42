#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <stop_token>
#include <vector>

#include "moefy/backend/backend.hpp"
#include "moefy/checkpoint/checkpoint.hpp"
#include "moefy/core/matrix.hpp"

namespace moefy {

/// A row-major matrix inside a tensor of a checkpoint: row i begins at element begin + i · stride.
struct StoredMatrix {
  const Checkpoint* checkpoint = nullptr;
  const TensorInfo* tensor = nullptr;
  std::uint64_t begin = 0;
  std::size_t rows = 0;
  std::size_t cols = 0;
  std::size_t stride = 0;
};

/// Multiplies stored matrices with a few vectors, in tiles; buffers are reused.
class TiledProduct {
 public:
  TiledProduct(Backend& backend, const std::stop_token& stop) : backend_(backend), stop_(stop) {}

  /// out [rows, T] = M · vectorsᵀ, vectors [T, cols].
  Matrix<float> by_columns(const StoredMatrix& matrix, MatrixView<const float> vectors);
  /// out [cols, T] = Mᵀ · vectorsᵀ, vectors [T, rows].
  Matrix<float> by_rows(const StoredMatrix& matrix, MatrixView<const float> vectors);

 private:
  /// Rows [row, row + count) widened, [count, cols].
  MatrixView<const float> tile(const StoredMatrix& matrix, std::size_t row, std::size_t count);

  Backend& backend_;
  const std::stop_token& stop_;
  AlignedBuffer<std::byte> raw_;
  AlignedBuffer<float> wide_;
};

/// The transposed copy of a small matrix.
Matrix<float> transposed(MatrixView<const float> matrix);

}  // namespace moefy
