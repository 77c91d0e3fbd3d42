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
  float* norm = nullptr;               ///< [num_rows] the same as floats
  float* max_abs = nullptr;            ///< [num_rows]
  float* step = nullptr;               ///< [num_rows] of the int8 values
  std::int8_t* quantized = nullptr;    ///< [num_rows, padded_dim(dim)]; needs step
  std::uint64_t* first_bad = nullptr;  ///< row << 32 | column of the first NaN or infinity;
                                       ///< set it to all ones before
};

/// Figures of many rows x [num_rows, dim] (device).
void measure_rows(const float* x, std::size_t num_rows, std::size_t dim, const RowFigures& figures,
                  cudaStream_t stream);

/// Device memory that measure_columns fills; the int8 values may be null.
struct ColumnFigures {
  float* norm = nullptr;             ///< [num_columns] ‖x‖², or ‖x‖² - ‖base‖²
  float* step = nullptr;             ///< [num_columns] of the int8 values
  std::int8_t* quantized = nullptr;  ///< [num_columns, padded_dim(dim)] of x, or of x - base
};

/// Figures of few columns x [num_columns, dim] (device), or, if base is not null, of what has
/// changed since they were those of base. Norms are added up as in measure_rows.
void measure_columns(const float* x, const float* base, std::size_t num_columns, std::size_t dim,
                     const ColumnFigures& figures, cudaStream_t stream);

/// to[a] = from[rows[a]] for rows of `width` 4-byte words.
void gather_rows(const std::uint32_t* from, const std::int32_t* rows, std::size_t num_rows,
                 std::size_t width, std::uint32_t* to, cudaStream_t stream);

}  // namespace moefy::cuda
