#pragma once

#include <cstddef>
#include <cstdint>

namespace moefy {

/// The least two of a row of costs plus prices, and the first site of the least one.
struct TwoCheapest {
  std::int32_t best;
  std::int32_t second;  ///< of another site; it may be equal
  std::size_t site;
};

/// Loops over one row, compiled for each instruction set: the same bits from all.
struct RowLoops {
  /// See squared_norm_of; in fp64.
  double (*squared_norm)(const float* row, std::size_t size);
  /// sum += factor · row, in fp64.
  void (*add_scaled)(double factor, const float* row, std::size_t size, double* sum);
  /// size: a multiple of 16, padding included.
  TwoCheapest (*two_cheapest)(const std::int32_t* costs, const std::int32_t* prices,
                              std::size_t size);
};

/// For the widest instruction set of this CPU.
const RowLoops& row_loops();

const RowLoops& row_loops_avx2();
const RowLoops& row_loops_avx512();

}  // namespace moefy
