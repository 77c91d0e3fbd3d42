#pragma once

#include <cuda_runtime.h>

#include <cstddef>

namespace moefy::cuda {

/// sum[i] = Σ_l x[i, l]: nothing that reads the rows x [num_rows, dim] can be faster. dim is a
/// multiple of 4, and x aligned to 16 bytes; all device memory.
void sum_rows(const float* x, std::size_t num_rows, std::size_t dim, float* sum,
              cudaStream_t stream);

}  // namespace moefy::cuda
