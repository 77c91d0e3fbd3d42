#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace moefy {

/// One kernel, or copy, on a GPU.
struct KernelTiming {
  std::string name;
  std::uint64_t bytes = 0;       ///< that it has to read, or to copy, at least
  std::uint64_t operations = 0;  ///< multiplications and additions; 0: not what it is measured by
  std::vector<double> seconds;   ///< of one call, by run
};

/// Times the passes over random rows [num_rows, dim] with num_sites centroids, and what bounds
/// them: a copy of the rows to the device, a kernel that only sums them, and, where it is there,
/// cuBLAS. A run is several calls after one another, of which the mean counts. Throws DeviceError,
/// and UsageError where moefy was built without CUDA.
std::vector<KernelTiming> time_cuda_kernels(int device, std::size_t num_rows, std::size_t dim,
                                            std::size_t num_sites, int repeats);

}  // namespace moefy
