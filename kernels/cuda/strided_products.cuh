#pragma once

#include "cuda/device_code.cuh"
#include "cuda/launch.cuh"
#include "cuda/operand.hpp"

/// Products of matrices that may be turned, and what becomes of each element at once.
namespace moefy::cuda {

/// A block computes kStridedRows x kStridedColumns elements, a thread kOwn x kOwn of them, and
/// holds kStridedDepth of the sums' terms at a time.
inline constexpr unsigned kStridedRows = 64;
inline constexpr unsigned kStridedColumns = 32;
inline constexpr unsigned kStridedDepth = 16;
inline constexpr unsigned kOwn = 4;
inline constexpr unsigned kStridedBlock = kStridedRows / kOwn * (kStridedColumns / kOwn);

/// One column of padding keeps neighbouring rows on different banks.
template <class T>
struct StridedTile {
  T a[kStridedDepth][kStridedRows + 1];
  T b[kStridedDepth][kStridedColumns + 1];
};

__device__ inline float multiply_add(float a, float b, float sum) { return __fmaf_rn(a, b, sum); }
__device__ inline double multiply_add(double a, double b, double sum) {
  return __fma_rn(a, b, sum);
}

/// to[l][i] = element (first_row + i, first_term + l) of `from`, zero beyond [num_rows, num_terms);
/// neighbouring threads read neighbouring addresses.
template <unsigned kRows, class T>
__device__ void load_tile(const Operand<T>& from, std::size_t first_row, std::size_t num_rows,
                          std::size_t first_term, std::size_t num_terms,
                          T (&to)[kStridedDepth][kRows + 1]) {
  for (unsigned e = threadIdx.x; e < kRows * kStridedDepth; e += kStridedBlock) {
    const unsigned i = from.turned ? e % kRows : e / kStridedDepth;
    const unsigned l = from.turned ? e / kRows : e % kStridedDepth;
    const std::size_t row = first_row + i;
    const std::size_t term = first_term + l;
    T value = 0;
    if (row < num_rows && term < num_terms) {
      value = from.data[from.turned ? term * from.width + row : row * from.width + term];
    }
    to[l][i] = value;
  }
}

/// `finish` gets each element of a · bᵀ [m, n] (with `lower` those of its lower triangle) with its
/// row and column; a [m, k], b [n, k], each of which may be turned. Terms are added in order.
template <class T, class Finish>
__global__ void __launch_bounds__(kStridedBlock)
    strided_kernel(Operand<T> a, Operand<T> b, std::size_t m, std::size_t n, std::size_t k,
                   bool lower, Finish finish) {
  const std::size_t first_row = std::size_t{blockIdx.x} * kStridedRows;
  const std::size_t first_column = std::size_t{blockIdx.y} * kStridedColumns;
  if (lower && first_row + kStridedRows <= first_column) return;
  auto& tile = *block_memory<StridedTile<T>>();
  const unsigned across = threadIdx.x % (kStridedColumns / kOwn);
  const unsigned down = threadIdx.x / (kStridedColumns / kOwn);
  T sum[kOwn][kOwn] = {};
  for (std::size_t first = 0; first < k; first += kStridedDepth) {
    __syncthreads();  // the tile was in use
    load_tile<kStridedRows>(a, first_row, m, first, k, tile.a);
    load_tile<kStridedColumns>(b, first_column, n, first, k, tile.b);
    __syncthreads();
#pragma unroll
    for (unsigned l = 0; l < kStridedDepth; ++l) {
      T x[kOwn];
      T y[kOwn];
#pragma unroll
      for (unsigned r = 0; r < kOwn; ++r) x[r] = tile.a[l][down + r * (kStridedRows / kOwn)];
#pragma unroll
      for (unsigned s = 0; s < kOwn; ++s) y[s] = tile.b[l][across + s * (kStridedColumns / kOwn)];
#pragma unroll
      for (unsigned r = 0; r < kOwn; ++r) {
#pragma unroll
        for (unsigned s = 0; s < kOwn; ++s) sum[r][s] = multiply_add(x[r], y[s], sum[r][s]);
      }
    }
  }
#pragma unroll
  for (unsigned r = 0; r < kOwn; ++r) {
    const std::size_t i = first_row + down + r * (kStridedRows / kOwn);
#pragma unroll
    for (unsigned s = 0; s < kOwn; ++s) {
      const std::size_t j = first_column + across + s * (kStridedColumns / kOwn);
      if (i < m && j < n && (!lower || j <= i)) finish(i, j, sum[r][s]);
    }
  }
}

template <class T, class Finish>
void run_strided(const Operand<T>& a, const Operand<T>& b, std::size_t m, std::size_t n,
                 std::size_t k, bool lower, Finish finish, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>((m + kStridedRows - 1) / kStridedRows),
                  static_cast<unsigned>((n + kStridedColumns - 1) / kStridedColumns));
  launch(strided_kernel<T, Finish>, grid, kStridedBlock, sizeof(StridedTile<T>), stream, a, b, m, n,
         k, lower, finish);
}

}  // namespace moefy::cuda
