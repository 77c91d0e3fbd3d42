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

/// Terms of a sum that a block prepares at a time, and how many of them a thread fetches at once.
constexpr std::size_t kTerms = 4096;
constexpr unsigned kFetched = 8;
static_assert(kTerms % (kFetched * kBlock) == 0);

/// Σ (to(l) - from[l])² over the columns of a row, in order, for the first thread of the block: the
/// terms are computed by all threads, and added by one. `out`, if not null, gets to(l); it may be
/// `from`. Needs kTerms doubles of shared memory.
template <class To>
__device__ double squared_steps(std::size_t dim, const float* from, const To& to, float* out) {
  double* const terms = block_memory<double>();
  double sum = 0;
  for (std::size_t first = 0; first < dim; first += kTerms) {
    const std::size_t end = dim - first < kTerms ? dim : first + kTerms;
    for (std::size_t own = first + threadIdx.x; own < end; own += kFetched * kBlock) {
      float now[kFetched];
      float before[kFetched];
#pragma unroll
      for (unsigned v = 0; v < kFetched; ++v) {
        now[v] = to(own + v * kBlock);
        // The fallback is this thread's own: another one may be written meanwhile.
        const std::size_t l = own + v * kBlock;
        before[v] = from[l < dim ? l : own];
      }
#pragma unroll
      for (unsigned v = 0; v < kFetched; ++v) {
        const std::size_t l = own + v * kBlock;
        const double step = static_cast<double>(now[v]) - static_cast<double>(before[v]);
        terms[l - first] = step * step;
        if (out != nullptr && l < dim) out[l] = now[v];
      }
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      const auto count = static_cast<unsigned>(end - first);
#pragma unroll 16
      for (unsigned t = 0; t < count; ++t) sum += terms[t];
    }
    __syncthreads();
  }
  return sum;
}

/// A block a site.
__global__ void move_to_means_kernel(const unsigned long long* sums, std::size_t dim,
                                     const SiteShare* site, float* centroids, double* shift) {
  const SiteShare own = site[blockIdx.x];
  const unsigned long long* const sum = sums + static_cast<std::size_t>(own.site) * dim;
  float* const centroid = centroids + static_cast<std::size_t>(own.site) * dim;
  const auto mean = [&](std::size_t l) {
    const auto integer = static_cast<long long>(load_or_zero(sum, l, dim));
    return static_cast<float>(static_cast<double>(integer) * own.share);
  };
  const double total = squared_steps(dim, centroid, mean, centroid);
  if (threadIdx.x == 0) shift[blockIdx.x] = total;
}

/// A block a site.
__global__ void squared_shifts_kernel(const float* before, const float* after, std::size_t dim,
                                      double* shift) {
  const std::size_t begin = blockIdx.x * dim;
  const double total = squared_steps(
      dim, before + begin, [&](std::size_t l) { return load_or_zero(after + begin, l, dim); },
      nullptr);
  if (threadIdx.x == 0) shift[blockIdx.x] = total;
}

/// A warp a site.
__global__ void mark_changed_kernel(const std::uint32_t* before, const std::uint32_t* after,
                                    std::size_t num_sites, std::size_t dim, unsigned* changed) {
  for (std::size_t j = warp_index(); j < num_sites; j += num_warps()) {
    unsigned differing = 0;
    for (std::size_t l = lane_index(); l < dim; l += kWarp) {
      if (before[j * dim + l] != after[j * dim + l]) ++differing;
    }
    differing = warp_sum(differing);
    if (lane_index() == 0) changed[j] = differing;
  }
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

void move_to_means(const unsigned long long* sums, std::size_t dim, const SiteShare* site,
                   std::size_t num_sites, float* centroids, double* shift, cudaStream_t stream) {
  launch(move_to_means_kernel, static_cast<unsigned>(num_sites), kBlock, kTerms * sizeof(double),
         stream, sums, dim, site, centroids, shift);
}

void squared_shifts(const float* before, const float* after, std::size_t num_sites, std::size_t dim,
                    double* shift, cudaStream_t stream) {
  launch(squared_shifts_kernel, static_cast<unsigned>(num_sites), kBlock, kTerms * sizeof(double),
         stream, before, after, dim, shift);
}

void mark_changed(const float* before, const float* after, std::size_t num_sites, std::size_t dim,
                  unsigned* changed, cudaStream_t stream) {
  launch(mark_changed_kernel, strided_grid(num_sites, kBlock / kWarp, kBlock), kBlock, 0, stream,
         reinterpret_cast<const std::uint32_t*>(before),
         reinterpret_cast<const std::uint32_t*>(after), num_sites, dim, changed);
}

void squared_distances(const float* x, std::size_t num_rows, std::size_t dim, const float* c,
                       const std::int32_t* label, double* distance, cudaStream_t stream) {
  launch(squared_distances_kernel, strided_grid(num_rows, kBlock / kWarp, kBlock), kBlock, 0,
         stream, x, num_rows, dim, c, label, distance);
}

}  // namespace moefy::cuda
