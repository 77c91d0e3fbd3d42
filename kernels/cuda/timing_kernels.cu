#include "cuda/timing_kernels.hpp"

#include "cuda/device_code.cuh"
#include "cuda/launch.cuh"

namespace moefy::cuda {
namespace {

constexpr unsigned kBlock = 256;

__global__ void sum_rows_kernel(const float* x, std::size_t num_rows, std::size_t dim, float* sum) {
  for (std::size_t i = warp_index(); i < num_rows; i += num_warps()) {
    const auto* const row = reinterpret_cast<const float4*>(x + i * dim);
    float total = 0;
#pragma unroll 4
    for (std::size_t l = lane_index(); l < dim / 4; l += kWarp) {
      const float4 four = row[l];
      total += (four.x + four.y) + (four.z + four.w);
    }
    total = warp_sum(total);
    if (lane_index() == 0) sum[i] = total;
  }
}

}  // namespace

void sum_rows(const float* x, std::size_t num_rows, std::size_t dim, float* sum,
              cudaStream_t stream) {
  launch(sum_rows_kernel, strided_grid(num_rows, kBlock / kWarp, kBlock), kBlock, 0, stream, x,
         num_rows, dim, sum);
}

}  // namespace moefy::cuda
