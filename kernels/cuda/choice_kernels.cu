#include "cuda/device_code.cuh"
#include "cuda/launch.cuh"
#include "cuda/token_kernels.hpp"

namespace moefy::cuda {
namespace {

/// A row is one warp's: a block of its own.
constexpr unsigned kBlock = kWarp;
constexpr unsigned kDigitBits = 8;
constexpr unsigned kDigits = 1U << kDigitBits;

struct ChoiceMemory {
  unsigned count[kDigits];
  unsigned digit;      ///< of the last value that is marked
  unsigned remaining;  ///< to be marked among the values that begin with the digits so far
};

/// Unsigned integers in the order of the values; zeros of both signs are equal.
__device__ unsigned key_of(float value, bool magnitude) {
  const unsigned bits = __float_as_uint((magnitude ? fabsf(value) : value) + 0.0F);
  return (bits >> 31) != 0 ? ~bits : bits | 0x80000000U;
}

/// How many of the lanes up to this one have `flag`.
__device__ unsigned rank_in_warp(bool flag) {
  unsigned sum = flag ? 1 : 0;
  for (unsigned delta = 1; delta < kWarp; delta *= 2) {
    const unsigned before = __shfl_up_sync(kAllLanes, sum, delta);
    if (lane_index() >= delta) sum += before;
  }
  return sum;
}

/// The key of the last value that is marked, digit by digit from counts; memory.remaining values
/// that are equal to it are marked.
__device__ unsigned last_marked_key(const float* row, std::size_t cols, bool magnitudes,
                                    ChoiceMemory& memory) {
  unsigned prefix = 0;
  for (unsigned shift = 32; shift > 0;) {
    const unsigned known = shift == 32 ? 0 : ~0U << shift;
    shift -= kDigitBits;
    for (unsigned d = threadIdx.x; d < kDigits; d += kBlock) memory.count[d] = 0;
    __syncthreads();
    for (std::size_t j = threadIdx.x; j < cols; j += kBlock) {
      const unsigned key = key_of(row[j], magnitudes);
      if ((key & known) == prefix) atomicAdd(&memory.count[key >> shift & (kDigits - 1)], 1U);
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      unsigned d = kDigits - 1;
      while (memory.count[d] < memory.remaining) memory.remaining -= memory.count[d--];
      memory.digit = d;
    }
    __syncthreads();
    prefix |= memory.digit << shift;
  }
  return prefix;
}

__global__ void mark_kernel(const float* values, std::size_t rows, std::size_t cols,
                            std::size_t count, bool magnitudes, float* marks) {
  auto& memory = *block_memory<ChoiceMemory>();
  for (std::size_t t = blockIdx.x; t < rows; t += gridDim.x) {
    const float* const row = values + t * cols;
    __syncthreads();  // the memory was in use
    if (threadIdx.x == 0) memory.remaining = static_cast<unsigned>(count);
    const unsigned last = last_marked_key(row, cols, magnitudes, memory);
    const unsigned equal_marks = memory.remaining;
    unsigned equal_before = 0;
    for (std::size_t first = 0; first < cols; first += kBlock) {
      const std::size_t j = first + threadIdx.x;
      const unsigned key = j < cols ? key_of(row[j], magnitudes) : 0;
      const bool equal = j < cols && key == last;
      const unsigned rank = equal_before + rank_in_warp(equal);
      if (j < cols) {
        marks[t * cols + j] = key > last || (equal && rank <= equal_marks) ? 1.0F : 0.0F;
      }
      equal_before = __shfl_sync(kAllLanes, rank, static_cast<int>(kWarp) - 1);
    }
  }
}

}  // namespace

void mark_largest(const float* values, std::size_t rows, std::size_t cols, std::size_t count,
                  bool magnitudes, float* marks, cudaStream_t stream) {
  launch(mark_kernel, strided_grid(rows, 1, kBlock), kBlock, sizeof(ChoiceMemory), stream, values,
         rows, cols, count, magnitudes, marks);
}

}  // namespace moefy::cuda
