#include "moefy/backend/linear_algebra.hpp"

#include <cblas.h>
#include <lapacke.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <vector>

#include "moefy/core/error.hpp"

namespace moefy {

namespace {

constexpr std::size_t kTile = 256;

std::size_t tiles(std::size_t rows) { return (rows + kTile - 1) / kTile; }

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
  threads.for_each(tiles(a.rows), [&](std::size_t tile) {
    const std::size_t first = tile * kTile;
    multiply_rows(a, b, turn_b, out, first, std::min(kTile, a.rows - first));
  });
}

/// Adds aᵀ·b to sum, tile by tile of its rows; `lower` stops at the diagonal's tile.
void add_product(MatrixView<const float> a, MatrixView<const float> b, Matrix<double>& sum,
                 bool lower, ThreadPool& threads) {
  require(a.rows == b.rows && sum.rows() == a.cols && sum.cols() == b.cols,
          "a sum of the shape of its product");
  hold_blas_to_one_thread();
  threads.for_each(tiles(a.cols), [&](std::size_t tile) {
    const std::size_t first = tile * kTile;
    const std::size_t count = std::min(kTile, a.cols - first);
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

double mean_of_diagonal(const Matrix<double>& matrix) {
  double sum = 0;
  for (std::size_t i = 0; i < matrix.rows(); ++i) sum += matrix.row(i)[i];
  return sum / static_cast<double>(std::max<std::size_t>(1, matrix.rows()));
}

Matrix<double> with_diagonal(const Matrix<double>& matrix, double added) {
  Matrix<double> copy(matrix.rows(), matrix.cols());
  std::ranges::copy(matrix.values(), copy.values().begin());
  for (std::size_t i = 0; i < copy.rows(); ++i) copy.row(i)[i] += added;
  return copy;
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

void multiply_tile(MatrixView<const float> a, MatrixView<const float> b, MatrixView<float> out) {
  require(a.cols == b.rows && out.rows == a.rows && out.cols == b.cols && a.rows <= kTile,
          "shapes of a · b, at most a tile of rows");
  if (out.empty()) return;
  hold_blas_to_one_thread();
  multiply_rows(a, b, CblasNoTrans, out, 0, a.rows);
}

void add_block_product(MatrixView<const float> a, MatrixView<const float> b, Matrix<double>& sum,
                       ThreadPool& threads) {
  add_product(a, b, sum, false, threads);
}

void add_block_gram(MatrixView<const float> a, Matrix<double>& sum, ThreadPool& threads) {
  add_product(a, a, sum, true, threads);
}

CholeskyFactor::CholeskyFactor(Matrix<double> matrix) : factor_(std::move(matrix)) {
  require(factor_.rows() == factor_.cols(), "a square matrix");
  hold_blas_to_one_thread();
  // A row-major lower triangle is a column-major upper one.
  const lapack_int n = blas_size(factor_.rows());
  lapack_int info = 0;
  LAPACK_dpotrf("U", &n, factor_.values().data(), &n, &info);
  require(info >= 0, "dpotrf: a wrong argument");
  bool finite = info == 0;
  for (std::size_t i = 0; finite && i < factor_.rows(); ++i)
    finite = std::isfinite(factor_.row(i)[i]);
  if (!finite) throw InputError("a matrix of sums over tokens is not positive definite");
}

void CholeskyFactor::solve(Matrix<double>& rhs) const {
  require(rhs.rows() == factor_.rows(), "as many rows as the factor");
  if (rhs.values().empty()) return;
  hold_blas_to_one_thread();
  for (const CBLAS_TRANSPOSE turn : {CblasNoTrans, CblasTrans})
    cblas_dtrsm(CblasRowMajor, CblasLeft, CblasLower, turn, CblasNonUnit, blas_size(rhs.rows()),
                blas_size(rhs.cols()), 1.0, factor_.values().data(), blas_size(factor_.cols()),
                rhs.values().data(), blas_size(rhs.cols()));
}

CholeskyFactor ridge_factor(const Matrix<double>& matrix, double ridge, double* used) {
  constexpr int kMostRaises = 6;
  const double mean = mean_of_diagonal(matrix);
  for (int raise = 0;; ++raise, ridge *= 10) {
    try {
      CholeskyFactor factor(with_diagonal(matrix, ridge * mean));
      if (used) *used = ridge;
      return factor;
    } catch (const InputError&) {
      if (raise == kMostRaises) throw;
    }
  }
}

}  // namespace moefy
