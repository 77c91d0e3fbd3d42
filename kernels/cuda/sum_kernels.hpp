#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

namespace moefy::cuda {

/// Rows that come to, or leave, one site: entries [begin, end) of a list.
struct SumSegment {
  std::int32_t target;  ///< row of the sums
  std::int32_t begin;
  std::int32_t end;
};

/// Which centroid becomes a mean, and what makes one of its sum.
struct SiteShare {
  double share;  ///< 2^-a / count
  std::int32_t site;
};

/// Adds x · 2^a, rounded to the nearest integer, of the listed rows to sums [*, dim] (two's
/// complement). entry >= 0: row `entry` is added; else row ~entry is subtracted. All device memory.
void add_rows(const float* x, std::size_t dim, double scale, const std::int32_t* entry,
              const SumSegment* segment, std::size_t num_segments, unsigned long long* sums,
              cudaStream_t stream);

/// centroids [*, dim] of `num_sites` listed sites become float(sum · share); shift [num_sites] gets
/// Σ (new - old)² in fp64, columns in order.
void move_to_means(const unsigned long long* sums, std::size_t dim, const SiteShare* site,
                   std::size_t num_sites, float* centroids, double* shift, cudaStream_t stream);

/// shift[j] = Σ (after_j - before_j)² in fp64, columns in order; both [num_sites, dim].
void squared_shifts(const float* before, const float* after, std::size_t num_sites, std::size_t dim,
                    double* shift, cudaStream_t stream);

/// changed[j] != 0: row j of `after` has other bits than that of `before`; both [num_sites, dim].
void mark_changed(const float* before, const float* after, std::size_t num_sites, std::size_t dim,
                  unsigned* changed, cudaStream_t stream);

/// distance[i] = ‖x_i - c_label(i)‖² in fp64, added in one fixed order. x [num_rows, dim].
void squared_distances(const float* x, std::size_t num_rows, std::size_t dim, const float* c,
                       const std::int32_t* label, double* distance, cudaStream_t stream);

}  // namespace moefy::cuda
