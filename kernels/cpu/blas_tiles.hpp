#pragma once

#include <cstddef>
#include <span>

#include "moefy/core/matrix.hpp"
#include "moefy/core/thread_pool.hpp"

namespace moefy::cpu {

// OpenBLAS in tiles of 256 rows by index, one thread a tile, so that results do not depend on the
// number of threads. All matrices are row-major host memory.

/// Rows of a tile.
inline constexpr std::size_t kTileRows = 256;

/// body(first, count) for [0, rows) in tiles, on the pool.
template <class Body>
void for_row_tiles(std::size_t rows, ThreadPool& threads, const Body& body) {
  threads.for_each((rows + kTileRows - 1) / kTileRows, [&](std::size_t tile) {
    const std::size_t first = tile * kTileRows;
    body(first, rows - first < kTileRows ? rows - first : kTileRows);
  });
}

/// out [m, n] = a · bᵀ; a [m, k], b [n, k].
void multiply_transposed(MatrixView<const float> a, MatrixView<const float> b,
                         MatrixView<float> out, ThreadPool& threads);
/// out [m, n] = a · b; a [m, k], b [k, n].
void multiply(MatrixView<const float> a, MatrixView<const float> b, MatrixView<float> out,
              ThreadPool& threads);
/// out [m, n] = a[:, column : column + k] · b on the calling thread alone, which may be one of a
/// pool; at most a tile of rows; b [k, n].
void multiply_tile(MatrixView<const float> a, std::size_t column, MatrixView<const float> b,
                   MatrixView<float> out);

/// sum [n, m] += aᵀ · b in fp64; a [T, n], b [T, m], multiplied in fp32. `lower`: of tile rows only
/// what lies up to the diagonal's tile.
void add_product(MatrixView<const float> a, MatrixView<const float> b, bool lower,
                 Matrix<double>& sum, ThreadPool& threads);

/// The lower triangle of a symmetric matrix becomes that of its Cholesky factor; false if it is not
/// positive definite, or not finite. What lies above the diagonal does not matter, and is left
/// undefined.
bool factorize(Matrix<double>& matrix, ThreadPool& threads);
/// rhs [n, m] becomes (factor · factorᵀ)⁻¹ · rhs.
void solve(const Matrix<double>& factor, Matrix<double>& rhs, ThreadPool& threads);

}  // namespace moefy::cpu
