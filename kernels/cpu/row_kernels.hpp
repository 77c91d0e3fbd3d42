#pragma once

#include <cstddef>
#include <cstdint>

/// The inner loops over rows, once per instruction set. Plain data and function pointers only: the
/// files behind them are compiled with different options, so nothing inline may be shared.
namespace moefy::cpu {

/// Quantised rows come in groups of this many, interleaved by unit: [group][unit][row of the
/// group].
inline constexpr std::size_t kGroupRows = 16;
/// Largest int8 values. Those of columns have a bit less, so that the sum of two products fits
/// int16 also where columns are stored with an offset of 64 (vpmaddubsw).
inline constexpr float kLargestRowUnit = 127.0F;
inline constexpr float kLargestColumnUnit = 63.0F;
/// Kernels may read this many units behind the last row.
inline constexpr std::size_t kReadableUnits = 16 * kGroupRows;
/// Panels hold up to this many packed columns.
inline constexpr std::size_t kMaxPanelWidth = 32;

/// What `load` makes of the rows; arrays are padded to whole groups, padding rows are zero.
struct QuantizedRows {
  float* squared_norm = nullptr;
  float* step = nullptr;          ///< value of one int8 unit of the row
  std::int32_t* sum = nullptr;    ///< of the int8 values of the row
  std::int32_t* units = nullptr;  ///< null: no int8 values wanted
  std::size_t units_per_row = 0;
};

struct LoadStatistics {
  double max_squared_norm = 0;
  double sum_squared_norm = 0;
  float max_abs = 0;
  std::int64_t zero_rows = 0;
  std::int64_t bad_row = -1;  ///< first row with a NaN or infinity
};

/// Packed columns: centroids (or their shifts) that are to be multiplied with rows, in panels of
/// the kernels' width, the last one possibly narrower; packed_columns is a multiple of 16.
struct Panels {
  std::size_t dim = 0;
  std::size_t packed_columns = 0;
  const float* values = nullptr;        ///< fp32: [panel][dim][width]
  const std::int32_t* units = nullptr;  ///< int8: [panel][units_per_column][width]
  std::size_t units_per_column = 0;
  const float* norm = nullptr;          ///< [packed] squared norm, or its change
  const float* step = nullptr;          ///< [packed] value of one int8 unit
  const std::uint16_t* mask = nullptr;  ///< [num_groups] which of 16 destination columns are packed
  std::size_t num_groups = 0;           ///< of 16 destination columns
  bool all = false;                     ///< every destination column is packed, none is padding
  float scale = 1;                      ///< 2^s
};

struct RowKernels {
  std::size_t values_per_unit;   ///< int8 values in one int32 unit: 4 (bytes) or 2 (16-bit)
  std::size_t panel_width;       ///< of fp32 panels
  std::size_t unit_panel_width;  ///< of int8 panels
  std::size_t unit_multiple;     ///< columns of int8 panels are padded with zeros to whole ones

  double (*squared_norm)(const float* row, std::size_t dim);
  /// Rows [first, last), first a multiple of kGroupRows.
  void (*load)(const float* rows, std::size_t num_rows, std::size_t dim, std::size_t first,
               std::size_t last, const QuantizedRows& out, LoadStatistics& statistics);
  /// Quantises values - base (base may be null) and stores its units `width` apart. Returns the
  /// step.
  float (*pack_units)(const float* values, const float* base, std::size_t dim, std::size_t width,
                      std::int32_t* out);

  /// q rows [first, last) from fp32 products; scratch: kScratchRows * packed_columns.
  void (*costs)(const float* rows, const float* squared_norm, const Panels& panels,
                std::size_t first, std::size_t last, std::int32_t* q, std::size_t stride,
                std::int32_t* scratch);
  /// q rows [first, last) from int8 products; both multiples of kGroupRows or the end. Row of q ->
  /// group of rows by `step` blocks of 64.
  void (*approximate_costs)(const QuantizedRows& rows, const Panels& panels, std::size_t block_step,
                            std::size_t first, std::size_t last, std::int32_t* q,
                            std::size_t stride, std::int32_t* scratch);
  void (*changed_costs)(const QuantizedRows& rows, const Panels& panels, bool copy_others,
                        std::size_t first, std::size_t last, const std::int32_t* base,
                        std::int32_t* q, std::size_t stride, std::int32_t* scratch);

  /// sum[c] += (or -=) rint(row[c] * scale) for every row, columns [0, count).
  void (*add_rows)(const float* const* rows, std::size_t num_rows, std::size_t count, double scale,
                   bool subtract, std::int64_t* sum);
  /// Squared distance in fp64 of `row` to `centroid`.
  double (*squared_distance)(const float* row, const float* centroid, std::size_t dim);
  /// out rows [first, last) of a product with packed columns; out has num_columns columns.
  void (*multiply)(const float* rows, const Panels& panels, std::size_t first, std::size_t last,
                   std::size_t num_columns, float* out);
};

inline constexpr std::size_t kScratchRows = 32;

const RowKernels& portable_row_kernels();
#if defined(__x86_64__)
const RowKernels& avx2_row_kernels();
const RowKernels& avx512_row_kernels();
const RowKernels& amx_row_kernels();
#endif

}  // namespace moefy::cpu
