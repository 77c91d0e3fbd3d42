#include "cuda/row_kernels.hpp"

#include "cuda/device_code.cuh"
#include "cuda/launch.cuh"

namespace moefy::cuda {
namespace {

constexpr unsigned kBlock = 128;
/// Lanes of a row: the reference adds sixteen partial sums.
constexpr unsigned kGroup = 16;

__global__ void measure_kernel(const float* x, std::size_t num_rows, std::size_t dim, float most,
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
    for (std::size_t l = lane; l < dim && there; l += kGroup) {
      const float value = row[l];
      sum += static_cast<double>(value) * static_cast<double>(value);
      largest = fmaxf(largest, fabsf(value));
      if (!isfinite(value) && figures.first_bad != nullptr) {
        atomicMin(reinterpret_cast<unsigned long long*>(figures.first_bad),
                  static_cast<unsigned long long>(i) << 32 | l);
      }
    }
    for (unsigned half = kGroup / 2; half > 0; half /= 2) {
      sum += __shfl_down_sync(kAllLanes, sum, half, kGroup);
      largest = fmaxf(largest, __shfl_xor_sync(kAllLanes, largest, static_cast<int>(half), kGroup));
    }
    if (!there) continue;
    const float step = largest > 0 ? largest / most : 1.0F;
    if (lane == 0) {
      if (figures.squared_norm != nullptr) figures.squared_norm[i] = sum;
      if (figures.max_abs != nullptr) figures.max_abs[i] = largest;
      if (figures.step != nullptr) figures.step[i] = step;
    }
    if (figures.quantized == nullptr) continue;
    const float inverse = 1.0F / step;
    for (std::size_t l = lane; l < padded; l += kGroup) {
      const int value = l < dim ? __float2int_rn(row[l] * inverse) : 0;
      figures.quantized[i * padded + l] = static_cast<std::int8_t>(value);
    }
  }
}

__global__ void subtract_kernel(const float* a, const float* b, std::size_t count, float* out) {
  const std::size_t stride = std::size_t{gridDim.x} * blockDim.x;
  for (std::size_t l = std::size_t{blockIdx.x} * blockDim.x + threadIdx.x; l < count; l += stride) {
    out[l] = a[l] - b[l];
  }
}

__global__ void narrow_kernel(const double* a, const double* b, std::size_t count, float* out) {
  const std::size_t stride = std::size_t{gridDim.x} * blockDim.x;
  for (std::size_t l = std::size_t{blockIdx.x} * blockDim.x + threadIdx.x; l < count; l += stride) {
    out[l] = static_cast<float>(b == nullptr ? a[l] : a[l] - b[l]);
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

void measure_rows(const float* x, std::size_t num_rows, std::size_t dim, float most,
                  const RowFigures& figures, cudaStream_t stream) {
  launch(measure_kernel, strided_grid(num_rows, kBlock / kGroup, kBlock), kBlock, 0, stream, x,
         num_rows, dim, most, figures, padded_dim(dim));
}

void subtract(const float* a, const float* b, std::size_t count, float* out, cudaStream_t stream) {
  launch(subtract_kernel, strided_grid(count, kBlock, kBlock), kBlock, 0, stream, a, b, count, out);
}

void narrow(const double* a, const double* b, std::size_t count, float* out, cudaStream_t stream) {
  launch(narrow_kernel, strided_grid(count, kBlock, kBlock), kBlock, 0, stream, a, b, count, out);
}

void gather_rows(const std::uint32_t* from, const std::int32_t* rows, std::size_t num_rows,
                 std::size_t width, std::uint32_t* to, cudaStream_t stream) {
  launch(gather_kernel, strided_grid(num_rows, kBlock / kWarp, kBlock), kBlock, 0, stream, from,
         rows, num_rows, width, to);
}

}  // namespace moefy::cuda
