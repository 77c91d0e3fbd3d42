#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

/// What kernels share. A kernel is written once: nvcc compiles it for devices, and tests/simt runs
/// the same source on the CPU, one fibre or thread for every CUDA thread.
namespace moefy::cuda {

inline constexpr unsigned kWarp = 32;
inline constexpr unsigned kAllLanes = 0xffffffffU;

/// The shared memory of the running block, as much as its launch asked for.
template <class T>
__device__ T* block_memory() {
#ifdef __CUDACC__
  extern __shared__ __align__(16) unsigned char moefy_block_memory[];
  return reinterpret_cast<T*>(moefy_block_memory);
#else
  return static_cast<T*>(simt::block_memory());
#endif
}

/// Index of this thread's warp in the whole grid, and their number: one warp a row.
__device__ inline std::size_t warp_index() {
  return (std::size_t{blockIdx.x} * blockDim.x + threadIdx.x) / kWarp;
}
__device__ inline std::size_t num_warps() { return std::size_t{gridDim.x} * blockDim.x / kWarp; }
__device__ inline unsigned lane_index() { return threadIdx.x % kWarp; }

/// Sum over groups of kLanes neighbouring lanes of a warp, the same on every lane of a group, in
/// one fixed order.
template <unsigned kLanes, class T>
__device__ T group_sum(T value) {
  for (unsigned half = kLanes / 2; half > 0; half /= 2) {
    value += __shfl_xor_sync(kAllLanes, value, static_cast<int>(half));
  }
  return value;
}

template <unsigned kLanes, class T>
__device__ T group_min(T value) {
  for (unsigned half = kLanes / 2; half > 0; half /= 2) {
    const T other = __shfl_xor_sync(kAllLanes, value, static_cast<int>(half));
    value = other < value ? other : value;
  }
  return value;
}

template <unsigned kLanes, class T>
__device__ T group_max(T value) {
  for (unsigned half = kLanes / 2; half > 0; half /= 2) {
    const T other = __shfl_xor_sync(kAllLanes, value, static_cast<int>(half));
    value = other > value ? other : value;
  }
  return value;
}

template <class T>
__device__ T warp_sum(T value) {
  return group_sum<kWarp>(value);
}

/// Words that are loaded and stored at once: at a multiple of their size.
template <class Word, unsigned kCount>
struct alignas(sizeof(Word) * kCount) Words {
  Word word[kCount];
};
template <class Word>
using Four = Words<Word, 4>;

/// values[at], or 0 from `count` (not 0) on: a load without a branch, so that many are under way at
/// once.
template <class T>
__device__ T load_or_zero(const T* values, std::size_t at, std::size_t count) {
  const T value = values[at < count ? at : 0];
  return at < count ? value : T{};
}

/// Words [l, l + 4) of a row of `width` words; zero beyond its end. l is a multiple of 4.
template <class Word>
__device__ Four<Word> load_four(const Word* row, std::size_t l, std::size_t width) {
  Four<Word> four{};
  if (width % 4 == 0) {
    if (l < width) four = *reinterpret_cast<const Four<Word>*>(row + l);
  } else {
    for (unsigned w = 0; w < 4 && l + w < width; ++w) four.word[w] = row[l + w];
  }
  return four;
}

}  // namespace moefy::cuda
