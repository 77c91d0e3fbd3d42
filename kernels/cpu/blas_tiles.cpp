#include "cpu/blas_tiles.hpp"

#include <cblas.h>
#include <lapacke.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "moefy/core/error.hpp"

namespace moefy::cpu {

namespace {

blasint blas_size(std::size_t value) {
  require(value <= static_cast<std::size_t>(std::numeric_limits<blasint>::max()),
          "a dimension that BLAS can count");
  return static_cast<blasint>(value);
}

/// Our pool is the only one: OpenBLAS' own threads would change the order of additions.
void hold_blas_to_one_thread() {
  if (openblas_get_num_threads() != 1) openblas_set_num_threads(1);
}

/// out rows [first, first + count) of a · op(b).
void multiply_rows(MatrixView<const float> a, MatrixView<const float> b, CBLAS_TRANSPOSE turn_b,
                   MatrixView<float> out, std::size_t first, std::size_t count) {
  cblas_sgemm(CblasRowMajor, CblasNoTrans, turn_b, blas_size(count), blas_size(out.cols),
              blas_size(a.cols), 1.0F, a.data + first * a.cols, blas_size(a.cols), b.data,
              blas_size(b.cols), 0.0F, out.data + first * out.cols, blas_size(out.cols));
}

void multiply_tiles(MatrixView<const float> a, MatrixView<const float> b, CBLAS_TRANSPOSE turn_b,
                    MatrixView<float> out, ThreadPool& threads) {
  if (out.empty()) return;
  hold_blas_to_one_thread();
  for_row_tiles(a.rows, threads, [&](std::size_t first, std::size_t count) {
    multiply_rows(a, b, turn_b, out, first, count);
  });
}

}  // namespace

void multiply_transposed(MatrixView<const float> a, MatrixView<const float> b,
                         MatrixView<float> out, ThreadPool& threads) {
  require(a.cols == b.cols && out.rows == a.rows && out.cols == b.rows, "shapes of a · bᵀ");
  multiply_tiles(a, b, CblasTrans, out, threads);
}

void multiply(MatrixView<const float> a, MatrixView<const float> b, MatrixView<float> out,
              ThreadPool& threads) {
  require(a.cols == b.rows && out.rows == a.rows && out.cols == b.cols, "shapes of a · b");
  multiply_tiles(a, b, CblasNoTrans, out, threads);
}

void multiply_tile(MatrixView<const float> a, std::size_t column, MatrixView<const float> b,
                   MatrixView<float> out) {
  require(
      column + b.rows <= a.cols && out.rows == a.rows && out.cols == b.cols && a.rows <= kTileRows,
      "shapes of a · b, at most a tile of rows");
  if (out.empty()) return;
  hold_blas_to_one_thread();
  cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, blas_size(a.rows), blas_size(b.cols),
              blas_size(b.rows), 1.0F, a.data + column, blas_size(a.cols), b.data,
              blas_size(b.cols), 0.0F, out.data, blas_size(out.cols));
}

void add_product(MatrixView<const float> a, MatrixView<const float> b, bool lower,
                 Matrix<double>& sum, ThreadPool& threads) {
  require(a.rows == b.rows && sum.rows() == a.cols && sum.cols() == b.cols,
          "a sum of the shape of its product");
  hold_blas_to_one_thread();
  // From the last tile, the widest of a triangle, so that no thread ends with it alone.
  const std::size_t tiles = (a.cols + kTileRows - 1) / kTileRows;
  threads.for_each(tiles, [&](std::size_t done) {
    const std::size_t first = (tiles - 1 - done) * kTileRows;
    const std::size_t count = std::min(kTileRows, a.cols - first);
    const std::size_t width = lower ? first + count : b.cols;
    std::vector<float> product(count * width);
    cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, blas_size(count), blas_size(width),
                blas_size(a.rows), 1.0F, a.data + first, blas_size(a.cols), b.data,
                blas_size(b.cols), 0.0F, product.data(), blas_size(width));
    for (std::size_t i = 0; i < count; ++i) {
      const std::span<double> row = sum.row(first + i);
      for (std::size_t j = 0; j < width; ++j) row[j] += static_cast<double>(product[i * width + j]);
    }
  });
}

bool factorize(Matrix<double>& matrix, ThreadPool& threads) {
  require(matrix.rows() == matrix.cols(), "a square matrix");
  hold_blas_to_one_thread();
  const std::size_t n = matrix.rows();
  const blasint stride = blas_size(n);
  for (std::size_t done = 0; done < n; done += kTileRows) {
    const std::size_t panel = std::min(kTileRows, n - done);
    double* const diagonal = matrix.row(done).data() + done;
    // A row-major lower triangle is a column-major upper one.
    const lapack_int size = blas_size(panel);
    lapack_int info = 0;
    LAPACK_dpotrf("U", &size, diagonal, &stride, &info);
    require(info >= 0, "dpotrf: a wrong argument");
    if (info != 0) return false;
    const std::size_t below = done + panel;
    for_row_tiles(n - below, threads, [&](std::size_t first, std::size_t count) {
      cblas_dtrsm(CblasRowMajor, CblasRight, CblasLower, CblasTrans, CblasNonUnit, blas_size(count),
                  blas_size(panel), 1.0, diagonal, stride, matrix.row(below + first).data() + done,
                  stride);
    });
    const std::size_t tiles = (n - below + kTileRows - 1) / kTileRows;
    threads.for_each(tiles, [&](std::size_t widest_first) {
      const std::size_t first = below + (tiles - 1 - widest_first) * kTileRows;
      const std::size_t count = std::min(kTileRows, n - first);
      cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasTrans, blas_size(count),
                  blas_size(first + count - below), blas_size(panel), -1.0,
                  matrix.row(first).data() + done, stride, matrix.row(below).data() + done, stride,
                  1.0, matrix.row(first).data() + below, stride);
    });
  }
  for (std::size_t i = 0; i < n; ++i)
    if (!std::isfinite(matrix.row(i)[i])) return false;
  return true;
}

void solve(const Matrix<double>& factor, Matrix<double>& rhs, ThreadPool& threads) {
  require(rhs.rows() == factor.rows(), "as many rows as the factor");
  if (rhs.values().empty()) return;
  hold_blas_to_one_thread();
  constexpr std::size_t kColumns = 96;
  threads.for_each((rhs.cols() + kColumns - 1) / kColumns, [&](std::size_t tile) {
    const std::size_t first = tile * kColumns;
    const std::size_t count = std::min(kColumns, rhs.cols() - first);
    for (const CBLAS_TRANSPOSE turn : {CblasNoTrans, CblasTrans})
      cblas_dtrsm(CblasRowMajor, CblasLeft, CblasLower, turn, CblasNonUnit, blas_size(rhs.rows()),
                  blas_size(count), 1.0, factor.values().data(), blas_size(factor.cols()),
                  rhs.values().data() + first, blas_size(rhs.cols()));
  });
}

}  // namespace moefy::cpu
