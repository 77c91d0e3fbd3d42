#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

namespace moefy::cuda {

/// Largest integers of quantised rows and columns: see Backend::approximate_costs.
inline constexpr float kLargestRowUnit = 127.0F;
inline constexpr float kLargestColumnUnit = 63.0F;

/// int8 rows are padded with zeros to a multiple of this many elements.
inline constexpr std::size_t kQuantizedAlignment = 16;
inline std::size_t padded_dim(std::size_t dim) {
  return (dim + kQuantizedAlignment - 1) / kQuantizedAlignment * kQuantizedAlignment;
}

/// Device memory that measure_rows fills; null where a figure is not wanted.
struct RowFigures {
  double* squared_norm = nullptr;      ///< [num_rows] in the order of sums of the reference
  float* max_abs = nullptr;            ///< [num_rows]
  float* step = nullptr;               ///< [num_rows] of the int8 values
  std::int8_t* quantized = nullptr;    ///< [num_rows, padded_dim(dim)]; needs step
  std::uint64_t* first_bad = nullptr;  ///< row << 32 | column of the first NaN or infinity;
                                       ///< set it to all ones before
};

/// Figures of the rows x [num_rows, dim] (device). `most`: the largest int8 value.
void measure_rows(const float* x, std::size_t num_rows, std::size_t dim, float most,
                  const RowFigures& figures, cudaStream_t stream);

/// out = a - b, elementwise; [count].
void subtract(const float* a, const float* b, std::size_t count, float* out, cudaStream_t stream);

/// out[i] = float(a[i]), or float(a[i] - b[i]) if b is not null.
void narrow(const double* a, const double* b, std::size_t count, float* out, cudaStream_t stream);

/// to[a] = from[rows[a]] for rows of `width` 4-byte words.
void gather_rows(const std::uint32_t* from, const std::int32_t* rows, std::size_t num_rows,
                 std::size_t width, std::uint32_t* to, cudaStream_t stream);

}  // namespace moefy::cuda
