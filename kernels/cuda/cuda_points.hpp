#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "cuda/runtime.hpp"
#include "moefy/backend/backend.hpp"

namespace moefy::cuda {

/// The rows of one layer in device memory.
struct CudaPoints final : Points {
  const float* x = nullptr;             // [num_rows, dim]: copies, or rows that were there
  DeviceBuffer<float> copies;           // of rows from the host
  DeviceBuffer<float> squared_norm;     // [num_rows]
  DeviceBuffer<float> step;             // of the int8 values of a row
  DeviceBuffer<std::int8_t> quantized;  // [num_rows, padded_dim(dim)]
};

/// Sums of values by row over each block of kSumBlock rows.
std::vector<double> block_sums(std::span<const double> row_value);

inline const CudaPoints& own(const Points& points) {
  return static_cast<const CudaPoints&>(points);
}

}  // namespace moefy::cuda
