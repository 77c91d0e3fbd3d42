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

/// A layer's passes on a GPU. Kernels that only cuBLAS has are missing where it is not there.
struct KernelTimings {
  std::vector<KernelTiming> kernels;
  std::string fp32_costs;  ///< the name of the one that a clustering takes for its fp32 costs
};

// Names of kernels that are compared.
inline constexpr const char* kCopyOfRows = "copy of the rows to the device";
inline constexpr const char* kSumOfRows = "sum of the rows";
inline constexpr const char* kOwnFp32Costs = "fp32 costs by own kernels";
inline constexpr const char* kCublasFp32Costs = "fp32 costs by cuBLAS";
inline constexpr const char* kCublasFp32Products = "cuBLAS fp32 products at once";
inline constexpr const char* kCublasFp32Default = "cuBLAS fp32 products at once, not pedantic";

/// Times the passes over random rows [num_rows, dim] with num_sites centroids, all of which lie on
/// the device, and what bounds them: a copy of the rows to the device, a kernel that only sums
/// them, and fp32 products by cuBLAS (TF32 off), in the blocks in which costs take them and at
/// once, there also by CUBLAS_COMPUTE_32F, which may choose among more algorithms. fp32 costs are
/// computed either way, by own kernels and by cuBLAS. A run is several calls after one another, of
/// which the mean counts. Throws DeviceError, and UsageError where moefy was built without CUDA.
KernelTimings time_cuda_kernels(int device, std::size_t num_rows, std::size_t dim,
                                std::size_t num_sites, int repeats);

/// Seconds of a copy of `bytes` from pinned host memory to the device, by run. Throws as above.
std::vector<double> time_copy_to_cuda(int device, std::size_t bytes, int repeats);

}  // namespace moefy
