#pragma once

#include <cstddef>

#include "moefy/core/matrix.hpp"
#include "moefy/core/thread_pool.hpp"

namespace moefy {

/// Dense products and solves on host memory (OpenBLAS, one thread a tile of 256 rows by global
/// index), so that results do not depend on the number of threads. All matrices are row-major.

/// out [m, n] = a · bᵀ; a [m, k], b [n, k].
void multiply_transposed(MatrixView<const float> a, MatrixView<const float> b,
                         MatrixView<float> out, ThreadPool& threads);
/// out [m, n] = a · b; a [m, k], b [k, n].
void multiply(MatrixView<const float> a, MatrixView<const float> b, MatrixView<float> out,
              ThreadPool& threads);
/// The same on the calling thread alone, which may be one of a pool: a tile of at most 256 rows.
void multiply_tile(MatrixView<const float> a, MatrixView<const float> b, MatrixView<float> out);

/// sum [n, m] += aᵀ · b in fp64; a [T, n], b [T, m] is one block of tokens, multiplied in fp32.
void add_block_product(MatrixView<const float> a, MatrixView<const float> b, Matrix<double>& sum,
                       ThreadPool& threads);
/// The lower triangle of sum [n, n] += aᵀ · a; what lies above the diagonal's tiles is left alone.
void add_block_gram(MatrixView<const float> a, Matrix<double>& sum, ThreadPool& threads);

/// The Cholesky factor of a symmetric positive definite matrix in fp64.
class CholeskyFactor {
 public:
  /// Takes the lower triangle of `matrix` [n, n]. Throws InputError if it is not positive definite
  /// (or not finite).
  explicit CholeskyFactor(Matrix<double> matrix);
  /// rhs [n, m] becomes matrix⁻¹ · rhs.
  void solve(Matrix<double>& rhs) const;

 private:
  Matrix<double> factor_;
};

/// The factor of matrix + ridge · mean(diagonal) · I. If that is not positive definite in fp64,
/// ridge is raised tenfold, at most six times; then InputError. `used` gets the ridge that worked.
CholeskyFactor ridge_factor(const Matrix<double>& matrix, double ridge, double* used = nullptr);

}  // namespace moefy
