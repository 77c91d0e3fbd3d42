#include "cuda/row_kernels.hpp"

#include "cuda/device_code.cuh"
#include "cuda/launch.cuh"

namespace moefy::cuda {
namespace {

constexpr unsigned kBlock = 128;
/// Lanes of a row: the reference adds sixteen partial sums.
constexpr unsigned kGroup = 16;

/// Folds the partial sums of a group in halves; its first lane gets the result.
__device__ double fold_parts(double part) {
  for (unsigned half = kGroup / 2; half > 0; half /= 2) {
    part += __shfl_down_sync(kAllLanes, part, half, kGroup);
  }
  return part;
}

__device__ float step_for(float largest, float most) { return largest > 0 ? largest / most : 1.0F; }

__device__ Four<std::int8_t> quantize(const Four<float>& four, float inverse_step) {
  Four<std::int8_t> integers;
  for (unsigned w = 0; w < 4; ++w) {
    integers.word[w] = static_cast<std::int8_t>(__float2int_rn(four.word[w] * inverse_step));
  }
  return integers;
}

/// Of the elements from `lane` on, every kGroup-th.
__device__ void note_first_bad(const float* row, std::size_t i, std::size_t dim, unsigned lane,
                               std::uint64_t* first_bad) {
  for (std::size_t l = lane; l < dim; l += kGroup) {
    if (isfinite(row[l])) continue;
    atomicMin(reinterpret_cast<unsigned long long*>(first_bad),
              static_cast<unsigned long long>(i) << 32 | l);
    return;
  }
}

/// A group a row.
__global__ void measure_rows_kernel(const float* x, std::size_t num_rows, std::size_t dim,
                                    RowFigures figures, std::size_t padded) {
  const unsigned lane = threadIdx.x % kGroup;
  const std::size_t stride = std::size_t{gridDim.x} * (blockDim.x / kGroup);
  // Both groups of a warp stay together, as shuffles need all lanes.
  for (std::size_t first =
           std::size_t{blockIdx.x} * (blockDim.x / kGroup) + threadIdx.x / kWarp * (kWarp / kGroup);
       first < num_rows; first += stride) {
    const std::size_t i = first + threadIdx.x % kWarp / kGroup;
    const bool there = i < num_rows;
    const float* const row = x + (there ? i : 0) * dim;
    double sum = 0;
    float largest = 0;
    const auto add = [&](float value) {
      sum += static_cast<double>(value) * static_cast<double>(value);
      largest = fmaxf(largest, fabsf(value));
    };
    const std::size_t all_lanes = dim / kGroup;
#pragma unroll 16
    for (std::size_t t = 0; t < all_lanes; ++t) add(row[t * kGroup + lane]);
    if (lane < dim % kGroup) add(row[all_lanes * kGroup + lane]);
    // The square of a finite float is a finite double, and so is the sum of any number of them.
    if (there && figures.first_bad != nullptr && !isfinite(sum)) {
      note_first_bad(row, i, dim, lane, figures.first_bad);
    }
    sum = fold_parts(sum);
    largest = group_max<kGroup>(largest);
    if (!there) continue;
    const float step = step_for(largest, kLargestRowUnit);
    if (lane == 0) {
      if (figures.squared_norm != nullptr) figures.squared_norm[i] = sum;
      if (figures.norm != nullptr) figures.norm[i] = static_cast<float>(sum);
      if (figures.max_abs != nullptr) figures.max_abs[i] = largest;
      if (figures.step != nullptr) figures.step[i] = step;
    }
    if (figures.quantized == nullptr) continue;
    const float inverse_step = 1.0F / step;
    auto* const integers = reinterpret_cast<Four<std::int8_t>*>(figures.quantized + i * padded);
#pragma unroll 4
    for (std::size_t l = 4 * lane; l < padded; l += 4 * kGroup) {
      integers[l / 4] = quantize(load_four(row, l, dim), inverse_step);
    }
  }
}

/// A block of measure_columns_kernel adds kTerms elements at a time, of which a thread fetches
/// kOwn.
constexpr unsigned kColumnBlock = 256;
constexpr unsigned kOwn = 8;
constexpr unsigned kTerms = kColumnBlock * kOwn;

struct ColumnMemory {
  double square[2][kTerms];  ///< of the elements of a column, and of its base
  float largest[kColumnBlock / kWarp];
};

/// Every kColumnBlock-th element from `first` on.
__device__ void fetch_own(const float* column, std::size_t first, std::size_t dim,
                          float (&value)[kOwn]) {
#pragma unroll
  for (unsigned v = 0; v < kOwn; ++v) {
    value[v] = load_or_zero(column, first + v * kColumnBlock, dim);
  }
}

/// A block a column. Its first warp adds: one group the squares of the column, the other those of
/// the base.
__global__ void measure_columns_kernel(const float* x, const float* base, std::size_t dim,
                                       ColumnFigures figures, std::size_t padded) {
  auto& memory = *block_memory<ColumnMemory>();
  const std::size_t j = blockIdx.x;
  const float* const column = x + j * dim;
  const float* const old_column = base == nullptr ? nullptr : base + j * dim;
  double sum = 0;
  float largest = 0;
  for (std::size_t first = 0; first < dim; first += kTerms) {
    float value[kOwn];
    float old_value[kOwn] = {};
    fetch_own(column, first + threadIdx.x, dim, value);
    if (old_column != nullptr) fetch_own(old_column, first + threadIdx.x, dim, old_value);
#pragma unroll
    for (unsigned v = 0; v < kOwn; ++v) {
      const auto wide = static_cast<double>(value[v]);
      const auto old_wide = static_cast<double>(old_value[v]);
      memory.square[0][threadIdx.x + v * kColumnBlock] = wide * wide;
      memory.square[1][threadIdx.x + v * kColumnBlock] = old_wide * old_wide;
      largest = fmaxf(largest, fabsf(value[v] - old_value[v]));
    }
    __syncthreads();
    if (threadIdx.x < kWarp) {
      const double* const square = memory.square[threadIdx.x / kGroup];
#pragma unroll 16
      for (unsigned t = threadIdx.x % kGroup; t < kTerms; t += kGroup) sum += square[t];
    }
    __syncthreads();
  }
  if (threadIdx.x < kWarp) {
    sum = fold_parts(sum);
    const double old_sum = __shfl_sync(kAllLanes, sum, kGroup);
    if (threadIdx.x == 0) figures.norm[j] = static_cast<float>(sum - old_sum);
  }
  if (figures.quantized == nullptr) return;

  largest = group_max<kWarp>(largest);
  if (lane_index() == 0) memory.largest[threadIdx.x / kWarp] = largest;
  __syncthreads();
  for (const float other : memory.largest) largest = fmaxf(largest, other);
  const float step = step_for(largest, kLargestColumnUnit);
  if (threadIdx.x == 0) figures.step[j] = step;
  const float inverse_step = 1.0F / step;
  auto* const integers = reinterpret_cast<Four<std::int8_t>*>(figures.quantized + j * padded);
#pragma unroll 4
  for (std::size_t l = 4 * threadIdx.x; l < padded; l += 4 * kColumnBlock) {
    Four<float> four = load_four(column, l, dim);
    if (old_column != nullptr) {
      const Four<float> old_four = load_four(old_column, l, dim);
      for (unsigned w = 0; w < 4; ++w) four.word[w] -= old_four.word[w];
    }
    integers[l / 4] = quantize(four, inverse_step);
  }
}

__global__ void gather_kernel(const std::uint32_t* from, const std::int32_t* rows,
                              std::size_t num_rows, std::size_t width, std::uint32_t* to) {
  for (std::size_t a = warp_index(); a < num_rows; a += num_warps()) {
    const std::uint32_t* const row = from + static_cast<std::size_t>(rows[a]) * width;
    for (std::size_t l = lane_index(); l < width; l += kWarp) to[a * width + l] = row[l];
  }
}

}  // namespace

void measure_rows(const float* x, std::size_t num_rows, std::size_t dim, const RowFigures& figures,
                  cudaStream_t stream) {
  launch(measure_rows_kernel, strided_grid(num_rows, kBlock / kGroup, kBlock), kBlock, 0, stream, x,
         num_rows, dim, figures, padded_dim(dim));
}

void measure_columns(const float* x, const float* base, std::size_t num_columns, std::size_t dim,
                     const ColumnFigures& figures, cudaStream_t stream) {
  launch(measure_columns_kernel, static_cast<unsigned>(num_columns), kColumnBlock,
         sizeof(ColumnMemory), stream, x, base, dim, figures, padded_dim(dim));
}

void gather_rows(const std::uint32_t* from, const std::int32_t* rows, std::size_t num_rows,
                 std::size_t width, std::uint32_t* to, cudaStream_t stream) {
  launch(gather_kernel, strided_grid(num_rows, kBlock / kWarp, kBlock), kBlock, 0, stream, from,
         rows, num_rows, width, to);
}

}  // namespace moefy::cuda
