#include "cuda/sum_kernels.hpp"

#include "cuda/device_code.cuh"
#include "cuda/launch.cuh"

namespace moefy::cuda {
namespace {

constexpr unsigned kBlock = 128;

/// A block: one segment (x) and as many columns as it has threads (y).
__global__ void add_rows_kernel(const float* x, std::size_t dim, double scale,
                                const std::int32_t* entry, const SumSegment* segment,
                                unsigned long long* sums) {
  const std::size_t l = std::size_t{blockIdx.y} * blockDim.x + threadIdx.x;
  if (l >= dim) return;
  const SumSegment own = segment[blockIdx.x];
  long long sum = 0;
  for (std::int32_t e = own.begin; e < own.end; ++e) {
    const std::int32_t row = entry[e];
    const bool leaves = row < 0;
    const float value = x[static_cast<std::size_t>(leaves ? ~row : row) * dim + l];
    const long long integer = __double2ll_rn(static_cast<double>(value) * scale);
    sum += leaves ? -integer : integer;
  }
  atomicAdd(sums + static_cast<std::size_t>(own.target) * dim + l,
            static_cast<unsigned long long>(sum));
}

__global__ void squared_distances_kernel(const float* x, std::size_t num_rows, std::size_t dim,
                                         const float* c, const std::int32_t* label,
                                         double* distance) {
  for (std::size_t i = warp_index(); i < num_rows; i += num_warps()) {
    const float* const row = x + i * dim;
    const float* const centroid = c + static_cast<std::size_t>(label[i]) * dim;
    double sum = 0;
    for (std::size_t l = lane_index(); l < dim; l += kWarp) {
      const double difference = static_cast<double>(row[l]) - static_cast<double>(centroid[l]);
      sum += difference * difference;
    }
    sum = warp_sum(sum);
    if (lane_index() == 0) distance[i] = sum;
  }
}

}  // namespace

void add_rows(const float* x, std::size_t dim, double scale, const std::int32_t* entry,
              const SumSegment* segment, std::size_t num_segments, unsigned long long* sums,
              cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>(num_segments),
                  static_cast<unsigned>((dim + kBlock - 1) / kBlock));
  launch(add_rows_kernel, grid, kBlock, 0, stream, x, dim, scale, entry, segment, sums);
}

void squared_distances(const float* x, std::size_t num_rows, std::size_t dim, const float* c,
                       const std::int32_t* label, double* distance, cudaStream_t stream) {
  launch(squared_distances_kernel, strided_grid(num_rows, kBlock / kWarp, kBlock), kBlock, 0,
         stream, x, num_rows, dim, c, label, distance);
}

}  // namespace moefy::cuda
