#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#include "moefy/backend/rows.hpp"

namespace moefy::cuda {

/// Widens a matrix of file elements (device, aligned to its type) to fp32 rows (device), a neuron a
/// row. `first_bad` (device; all ones before): the least index, in file order, of an element that
/// is not finite.
void widen_rows(const void* raw, const RawShape& shape, const RowsTarget& out,
                unsigned long long* first_bad, cudaStream_t stream);

/// Row i of x [num_rows, dim] times factor[i].
void scale_rows(float* x, std::size_t num_rows, std::size_t dim, const float* factor,
                cudaStream_t stream);
/// to[a] = from[rows[a]] · factor[a] for rows of `dim` values.
void gather_scaled_rows(const float* from, const std::int32_t* rows, const float* factor,
                        std::size_t num_rows, std::size_t dim, float* to, cudaStream_t stream);
/// to = from - vector, row by row; [num_rows, dim], vector [dim].
void subtract_vector(const float* from, const float* vector, std::size_t num_rows, std::size_t dim,
                     float* to, cudaStream_t stream);

/// Adds to sum[j] factor[i] · row i in fp64 for i = member[offset[j]] .. member[offset[j + 1] - 1],
/// in this order; sum [num_labels, dim], offset [num_labels + 1].
void add_rows_by_label(const float* x, std::size_t dim, const std::int32_t* member,
                       const std::int64_t* offset, const double* factor, std::size_t num_labels,
                       double* sum, cudaStream_t stream);

}  // namespace moefy::cuda
