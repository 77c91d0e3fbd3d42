#include "cuda/intake_kernels.hpp"

#include "cuda/device_code.cuh"
#include "cuda/launch.cuh"
#include "moefy/core/error.hpp"

namespace moefy::cuda {
namespace {

constexpr unsigned kBlock = 128;
/// Tiles of a transposition; a column of a tile touches every bank of shared memory once.
constexpr unsigned kTile = kWarp;
constexpr unsigned kTileStride = kTile + 1;

struct Half {
  std::uint16_t bits;
};
struct BFloat16 {
  std::uint16_t bits;
};

__device__ float widened(float value) { return value; }
__device__ float widened(BFloat16 value) {
  return __uint_as_float(static_cast<unsigned>(value.bits) << 16);
}
/// As half_to_float of core, bit for bit.
__device__ float widened(Half value) {
  const unsigned sign = static_cast<unsigned>(value.bits & 0x8000U) << 16;
  const unsigned magnitude = value.bits & 0x7fffU;
  const float scaled = __uint_as_float(magnitude << 13) * 0x1p112F;
  const unsigned bits =
      magnitude >= 0x7c00U ? 0x7f800000U | (magnitude & 0x3ffU) << 13 : __float_as_uint(scaled);
  return __uint_as_float(sign | bits);
}

__device__ void note_if_bad(float value, std::size_t index, unsigned long long* first_bad) {
  if (!isfinite(value)) atomicMin(first_bad, static_cast<unsigned long long>(index));
}

/// A warp a row, kAtOnce elements a lane at a time.
template <class Raw, unsigned kAtOnce>
__global__ void widen_kernel(const Raw* __restrict__ raw, std::size_t num_rows, std::size_t dim,
                             float* __restrict__ out, std::size_t stride,
                             unsigned long long* first_bad) {
  constexpr std::size_t kStep = kWarp * kAtOnce;
  for (std::size_t i = warp_index(); i < num_rows; i += num_warps()) {
    bool finite = true;
    const auto widen = [&](std::size_t l) {
      const auto from = *reinterpret_cast<const Words<Raw, kAtOnce>*>(raw + i * dim + l);
      Words<float, kAtOnce> to;
      for (unsigned w = 0; w < kAtOnce; ++w) {
        to.word[w] = widened(from.word[w]);
        finite = finite && isfinite(to.word[w]);
      }
      *reinterpret_cast<Words<float, kAtOnce>*>(out + i * stride + l) = to;
    };
    const std::size_t own = lane_index() * kAtOnce;
    const std::size_t all_lanes = dim / kStep;
#pragma unroll 4
    for (std::size_t t = 0; t < all_lanes; ++t) widen(t * kStep + own);
    if (own < dim % kStep) widen(all_lanes * kStep + own);
    if (finite) continue;
    for (std::size_t l = own; l < dim; l += kStep) {
      for (unsigned w = 0; w < kAtOnce; ++w) {
        note_if_bad(widened(raw[i * dim + l + w]), i * dim + l + w, first_bad);
      }
    }
  }
}

template <class Raw>
__global__ void widen_transposed_kernel(const Raw* raw, std::size_t num_rows, std::size_t dim,
                                        float* out, std::size_t stride,
                                        unsigned long long* first_bad) {
  auto* const tile = block_memory<float>();
  const unsigned lane = lane_index();
  const std::size_t across = (num_rows + kTile - 1) / kTile;
  const std::size_t num_tiles = across * ((dim + kTile - 1) / kTile);
  for (std::size_t t = blockIdx.x; t < num_tiles; t += gridDim.x) {
    const std::size_t first_row = t % across * kTile;
    const std::size_t first_column = t / across * kTile;
    for (unsigned r = threadIdx.x / kWarp; r < kTile; r += blockDim.x / kWarp) {
      const std::size_t l = first_column + r;
      const std::size_t i = first_row + lane;
      if (l >= dim || i >= num_rows) continue;
      const float value = widened(raw[l * num_rows + i]);
      note_if_bad(value, l * num_rows + i, first_bad);
      tile[r * kTileStride + lane] = value;
    }
    __syncthreads();
    for (unsigned r = threadIdx.x / kWarp; r < kTile; r += blockDim.x / kWarp) {
      const std::size_t i = first_row + r;
      const std::size_t l = first_column + lane;
      if (i < num_rows && l < dim) out[i * stride + l] = tile[lane * kTileStride + r];
    }
    __syncthreads();
  }
}

__global__ void scale_kernel(float* x, std::size_t num_rows, std::size_t dim, const float* factor) {
  for (std::size_t i = warp_index(); i < num_rows; i += num_warps()) {
    for (std::size_t l = lane_index(); l < dim; l += kWarp) x[i * dim + l] *= factor[i];
  }
}

__global__ void gather_scaled_kernel(const float* from, const std::int32_t* rows,
                                     const float* factor, std::size_t num_rows, std::size_t dim,
                                     float* to) {
  for (std::size_t a = warp_index(); a < num_rows; a += num_warps()) {
    const float* const row = from + static_cast<std::size_t>(rows[a]) * dim;
    for (std::size_t l = lane_index(); l < dim; l += kWarp) to[a * dim + l] = row[l] * factor[a];
  }
}

__global__ void subtract_vector_kernel(const float* from, const float* vector, std::size_t num_rows,
                                       std::size_t dim, float* to) {
  for (std::size_t i = warp_index(); i < num_rows; i += num_warps()) {
    for (std::size_t l = lane_index(); l < dim; l += kWarp) {
      to[i * dim + l] = from[i * dim + l] - vector[l];
    }
  }
}

/// A thread for each label and column: sums have one order.
__global__ void label_sum_kernel(const float* x, std::size_t dim, const std::int32_t* member,
                                 const std::int64_t* offset, const double* factor,
                                 std::size_t num_labels, double* sum) {
  const std::size_t stride = std::size_t{gridDim.x} * blockDim.x;
  for (std::size_t e = std::size_t{blockIdx.x} * blockDim.x + threadIdx.x; e < num_labels * dim;
       e += stride) {
    const std::size_t j = e / dim;
    const std::size_t l = e % dim;
    double total = sum[e];
    for (std::int64_t m = offset[j]; m < offset[j + 1]; ++m) {
      const auto i = static_cast<std::size_t>(member[m]);
      total += factor[i] * static_cast<double>(x[i * dim + l]);
    }
    sum[e] = total;
  }
}

template <class T>
bool is_aligned(const void* address) {
  return reinterpret_cast<std::uintptr_t>(address) % alignof(T) == 0;
}

template <class Raw>
void widen_elements(const void* raw, const RawShape& shape, const RowsTarget& out,
                    unsigned long long* first_bad, cudaStream_t stream) {
  const auto* const elements = static_cast<const Raw*>(raw);
  const auto widen = [&](auto kernel) {
    launch(kernel, strided_grid(shape.num_rows, kBlock / kWarp, kBlock), kBlock, 0, stream,
           elements, shape.num_rows, shape.dim, out.data, out.stride, first_bad);
  };
  if (shape.transposed) {
    const std::size_t tiles =
        ((shape.num_rows + kTile - 1) / kTile) * ((shape.dim + kTile - 1) / kTile);
    launch(widen_transposed_kernel<Raw>, strided_grid(tiles, 1, kBlock), kBlock,
           kTile * kTileStride * sizeof(float), stream, elements, shape.num_rows, shape.dim,
           out.data, out.stride, first_bad);
  } else if (shape.dim % 4 == 0 && out.stride % 4 == 0 && is_aligned<Four<Raw>>(raw) &&
             is_aligned<Four<float>>(out.data)) {
    widen(widen_kernel<Raw, 4>);
  } else {
    widen(widen_kernel<Raw, 1>);
  }
}

}  // namespace

void widen_rows(const void* raw, const RawShape& shape, const RowsTarget& out,
                unsigned long long* first_bad, cudaStream_t stream) {
  switch (shape.dtype) {
    case DType::f32:
      return widen_elements<float>(raw, shape, out, first_bad, stream);
    case DType::f16:
      return widen_elements<Half>(raw, shape, out, first_bad, stream);
    case DType::bf16:
      return widen_elements<BFloat16>(raw, shape, out, first_bad, stream);
    default:
      throw InternalError("widen: only F32, F16 and BF16 are computed with");
  }
}

void scale_rows(float* x, std::size_t num_rows, std::size_t dim, const float* factor,
                cudaStream_t stream) {
  launch(scale_kernel, strided_grid(num_rows, kBlock / kWarp, kBlock), kBlock, 0, stream, x,
         num_rows, dim, factor);
}

void gather_scaled_rows(const float* from, const std::int32_t* rows, const float* factor,
                        std::size_t num_rows, std::size_t dim, float* to, cudaStream_t stream) {
  launch(gather_scaled_kernel, strided_grid(num_rows, kBlock / kWarp, kBlock), kBlock, 0, stream,
         from, rows, factor, num_rows, dim, to);
}

void subtract_vector(const float* from, const float* vector, std::size_t num_rows, std::size_t dim,
                     float* to, cudaStream_t stream) {
  launch(subtract_vector_kernel, strided_grid(num_rows, kBlock / kWarp, kBlock), kBlock, 0, stream,
         from, vector, num_rows, dim, to);
}

void add_rows_by_label(const float* x, std::size_t dim, const std::int32_t* member,
                       const std::int64_t* offset, const double* factor, std::size_t num_labels,
                       double* sum, cudaStream_t stream) {
  launch(label_sum_kernel, strided_grid(num_labels * dim, kBlock, kBlock), kBlock, 0, stream, x,
         dim, member, offset, factor, num_labels, sum);
}

}  // namespace moefy::cuda
