#include "stored_matrix.hpp"

#include <algorithm>

#include "moefy/core/dtype.hpp"
#include "produce.hpp"

namespace moefy {

namespace {

std::size_t rows_a_tile(const StoredMatrix& matrix) {
  // Fits the cache of one core, so that widened values are used before they leave it.
  constexpr std::size_t kTileValues = std::size_t{1} << 18;
  return std::clamp<std::size_t>(kTileValues / std::max<std::size_t>(matrix.cols, 1), 1,
                                 std::max<std::size_t>(matrix.rows, 1));
}

}  // namespace

Matrix<float> transposed(MatrixView<const float> matrix) {
  Matrix<float> out(matrix.cols, matrix.rows);
  for (std::size_t i = 0; i < matrix.rows; ++i)
    for (std::size_t j = 0; j < matrix.cols; ++j) out.row(j)[i] = matrix.row(i)[j];
  return out;
}

MatrixView<const float> TiledProduct::tile(const StoredMatrix& matrix, std::size_t row,
                                           std::size_t count) {
  const DType dtype = matrix.tensor->dtype;
  const std::size_t size = size_of(dtype);
  wide_.resize(count * matrix.cols);
  // Strided rows are read in one piece, gaps included.
  raw_.resize(((count - 1) * matrix.stride + matrix.cols) * size);
  matrix.checkpoint->read(*matrix.tensor, (matrix.begin + row * matrix.stride) * size, raw_.span());
  if (matrix.stride == matrix.cols) {
    widen(dtype, raw_.span(), wide_.span());
  } else {
    for (std::size_t i = 0; i < count; ++i)
      widen(dtype, raw_.span().subspan(i * matrix.stride * size, matrix.cols * size),
            wide_.span().subspan(i * matrix.cols, matrix.cols));
  }
  return {wide_.data(), count, matrix.cols};
}

Matrix<float> TiledProduct::by_columns(const StoredMatrix& matrix,
                                       MatrixView<const float> vectors) {
  Matrix<float> out(matrix.rows, vectors.rows);
  const std::size_t step = rows_a_tile(matrix);
  for (std::size_t row = 0; row < matrix.rows; row += step) {
    stop_point(stop_);
    const std::size_t count = std::min(step, matrix.rows - row);
    backend_.multiply_transposed(tile(matrix, row, count), vectors,
                                 {out.row(row).data(), count, vectors.rows});
  }
  return out;
}

Matrix<float> TiledProduct::by_rows(const StoredMatrix& matrix, MatrixView<const float> vectors) {
  Matrix<float> out(matrix.cols, vectors.rows);
  std::ranges::fill(out.values(), 0.0f);
  Matrix<float> product(matrix.cols, vectors.rows);
  const std::size_t step = rows_a_tile(matrix);
  for (std::size_t row = 0; row < matrix.rows; row += step) {
    stop_point(stop_);
    const std::size_t count = std::min(step, matrix.rows - row);
    const Matrix<float> turned = transposed(tile(matrix, row, count));
    Matrix<float> part(vectors.rows, count);
    for (std::size_t t = 0; t < vectors.rows; ++t)
      std::ranges::copy(vectors.row(t).subspan(row, count), part.row(t).begin());
    backend_.multiply_transposed(turned.view(), part.view(), product.view());
    for (std::size_t i = 0; i < out.values().size(); ++i) out.values()[i] += product.values()[i];
  }
  return out;
}

}  // namespace moefy
