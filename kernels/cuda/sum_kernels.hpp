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

/// Adds x · 2^a, rounded to the nearest integer, of the listed rows to sums [*, dim] (two's
/// complement). entry >= 0: row `entry` is added; else row ~entry is subtracted. All device memory.
void add_rows(const float* x, std::size_t dim, double scale, const std::int32_t* entry,
              const SumSegment* segment, std::size_t num_segments, unsigned long long* sums,
              cudaStream_t stream);

/// distance[i] = ‖x_i - c_label(i)‖² in fp64, added in one fixed order. x [num_rows, dim].
void squared_distances(const float* x, std::size_t num_rows, std::size_t dim, const float* c,
                       const std::int32_t* label, double* distance, cudaStream_t stream);

}  // namespace moefy::cuda
