#include "cuda/cholesky_kernels.hpp"

#include <algorithm>

#include "cuda/strided_products.cuh"

namespace moefy::cuda {
namespace {

/// Columns that are eliminated together; a warp has a lane for each.
constexpr unsigned kPanel = kWarp;
constexpr unsigned kRowBlock = 64;     ///< rows of a panel that a block works on
constexpr unsigned kColumnBlock = 64;  ///< right-hand sides, a thread each

/// The diagonal block of a panel, and rows below it; padding keeps lanes on different banks.
struct PanelMemory {
  double diagonal[kPanel][kPanel + 1];
  double rows[kRowBlock][kPanel + 1];
};

/// Loads the block [size, size] at `from` of a matrix with rows of n elements.
__device__ void load_diagonal(const double* from, std::size_t n, unsigned size,
                              double (&to)[kPanel][kPanel + 1]) {
  for (unsigned e = threadIdx.x; e < size * size; e += blockDim.x) {
    to[e / size][e % size] = from[std::size_t{e / size} * n + e % size];
  }
  __syncthreads();
}

/// Factors the diagonal block [size, size] at `matrix` within one warp, a row a lane.
__global__ void diagonal_kernel(double* matrix, std::size_t n, unsigned size, int* failed) {
  auto& block = block_memory<PanelMemory>()->diagonal;
  load_diagonal(matrix, n, size, block);
  const unsigned r = threadIdx.x;
  for (unsigned c = 0; c < size; ++c) {
    if (r == c) {
      const double pivot = block[c][c];
      if (!(pivot > 0) || !isfinite(pivot)) *failed = 1;
      block[c][c] = sqrt(pivot);
    }
    __syncthreads();
    if (r > c && r < size) block[r][c] /= block[c][c];
    __syncthreads();
    for (unsigned s = c + 1; s <= r && r < size; ++s) block[r][s] -= block[r][c] * block[s][c];
    __syncthreads();
  }
  for (unsigned c = 0; c <= r && r < size; ++c) matrix[r * n + c] = block[r][c];
}

/// The num_rows rows below the diagonal block at `matrix`: x · blockᵀ = row, a thread a row.
__global__ void panel_kernel(double* matrix, std::size_t n, std::size_t num_rows) {
  auto& memory = *block_memory<PanelMemory>();
  load_diagonal(matrix, n, kPanel, memory.diagonal);
  const std::size_t first = std::size_t{blockIdx.x} * kRowBlock;
  double* const below = matrix + (kPanel + first) * n;
  const auto count =
      static_cast<unsigned>(num_rows - first < kRowBlock ? num_rows - first : kRowBlock);
  for (unsigned e = threadIdx.x; e < count * kPanel; e += blockDim.x) {
    memory.rows[e / kPanel][e % kPanel] = below[std::size_t{e / kPanel} * n + e % kPanel];
  }
  __syncthreads();
  if (threadIdx.x < count) {
    double(&x)[kPanel + 1] = memory.rows[threadIdx.x];
    for (unsigned c = 0; c < kPanel; ++c) {
      double rest = x[c];
      for (unsigned l = 0; l < c; ++l) rest -= x[l] * memory.diagonal[c][l];
      x[c] = rest / memory.diagonal[c][c];
    }
  }
  __syncthreads();
  for (unsigned e = threadIdx.x; e < count * kPanel; e += blockDim.x) {
    below[std::size_t{e / kPanel} * n + e % kPanel] = memory.rows[e / kPanel][e % kPanel];
  }
}

/// x [size, m] becomes block⁻¹ · x, or blockᵀ⁻¹ · x; the lower block [size, size] at `factor`. A
/// thread a column.
__global__ void substitute_kernel(const double* factor, std::size_t n, unsigned size,
                                  bool transposed, double* x, std::size_t m) {
  auto& block = block_memory<PanelMemory>()->diagonal;
  load_diagonal(factor, n, size, block);
  const std::size_t column = std::size_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (column >= m) return;
  for (unsigned step = 0; step < size; ++step) {
    const unsigned r = transposed ? size - 1 - step : step;
    double rest = x[r * m + column];
    for (unsigned done = 0; done < step; ++done) {
      const unsigned l = transposed ? size - 1 - done : done;
      rest -= (transposed ? block[l][r] : block[r][l]) * x[l * m + column];
    }
    x[r * m + column] = rest / block[r][r];
  }
}

struct Subtract {
  double* out;
  std::size_t stride;
  __device__ void operator()(std::size_t i, std::size_t j, double value) const {
    out[i * stride + j] -= value;
  }
};

unsigned panel_size(std::size_t first, std::size_t n) {
  return static_cast<unsigned>(std::min<std::size_t>(kPanel, n - first));
}

dim3 blocks_for(std::size_t count, unsigned per_block) {
  return dim3(static_cast<unsigned>((count + per_block - 1) / per_block));
}

}  // namespace

void cholesky_factor(double* matrix, std::size_t n, int* failed, cudaStream_t stream) {
  for (std::size_t first = 0; first < n; first += kPanel) {
    double* const diagonal = matrix + first * n + first;
    launch(diagonal_kernel, dim3(1), kPanel, sizeof(PanelMemory), stream, diagonal, n,
           panel_size(first, n), failed);
    if (first + kPanel >= n) break;
    const std::size_t below = n - first - kPanel;
    launch(panel_kernel, blocks_for(below, kRowBlock), kRowBlock, sizeof(PanelMemory), stream,
           diagonal, n, below);
    const Operand<double> panel{diagonal + kPanel * n, n, false};
    run_strided(panel, panel, below, below, kPanel, true,
                Subtract{diagonal + kPanel * n + kPanel, n}, stream);
  }
}

void cholesky_solve(const double* factor, std::size_t n, double* x, std::size_t m,
                    cudaStream_t stream) {
  const auto substitute = [&](std::size_t first, bool transposed) {
    launch(substitute_kernel, blocks_for(m, kColumnBlock), kColumnBlock, sizeof(PanelMemory),
           stream, factor + first * n + first, n, panel_size(first, n), transposed, x + first * m,
           m);
  };
  for (std::size_t first = 0; first < n; first += kPanel) {
    substitute(first, false);
    const std::size_t size = panel_size(first, n);
    const std::size_t below = first + size;
    run_strided(Operand<double>{factor + below * n + first, n, false},
                Operand<double>{x + first * m, m, true}, n - below, m, size, false,
                Subtract{x + below * m, m}, stream);
  }
  for (std::size_t end = n; end > 0;) {
    const std::size_t first = (end - 1) / kPanel * kPanel;
    substitute(first, true);
    run_strided(Operand<double>{factor + first * n, n, true},
                Operand<double>{x + first * m, m, true}, first, m, end - first, false,
                Subtract{x, m}, stream);
    end = first;
  }
}

}  // namespace moefy::cuda
