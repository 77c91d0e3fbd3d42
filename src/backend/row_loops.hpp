#pragma once

#include <cstddef>

namespace moefy {

/// Loops over one fp32 row in fp64, compiled for each instruction set: the same bits from all.
struct RowLoops {
  /// See squared_norm_of.
  double (*squared_norm)(const float* row, std::size_t size);
  /// sum += factor · row.
  void (*add_scaled)(double factor, const float* row, std::size_t size, double* sum);
};

/// For the widest instruction set of this CPU.
const RowLoops& row_loops();

const RowLoops& row_loops_avx2();
const RowLoops& row_loops_avx512();

}  // namespace moefy
