#include "moefy/backend/backend.hpp"
#include "moefy/backend/cublas.hpp"
#include "moefy/backend/cuda_memory.hpp"
#include "moefy/backend/kernel_timings.hpp"
#include "moefy/core/error.hpp"

namespace moefy {

bool cuda_is_built() { return false; }

int cuda_device_count() { return 0; }

std::string cuda_obstacle() { return "built without CUDA"; }

CudaVersions cuda_versions() { return {}; }

std::optional<CublasFile> find_cublas() { return std::nullopt; }

std::string describe_cublas() { return "no cuBLAS"; }

CudaDevice cuda_device(int /*device*/) { throw DeviceError("built without CUDA"); }

std::uint64_t free_cuda_memory(int /*device*/) { throw DeviceError("built without CUDA"); }

void limit_cuda_memory(std::uint64_t /*bytes*/) {}

void reserve_cuda_memory(int /*device*/, std::uint64_t /*bytes*/) {
  throw DeviceError("built without CUDA");
}

std::uint64_t peak_cuda_memory() { return 0; }

std::unique_ptr<Backend> make_cuda_backend(int /*device*/, std::size_t /*num_threads*/) {
  throw UsageError("--backend cuda: built without CUDA; configure with -DMOEFY_CUDA=ON");
}

KernelTimings time_cuda_kernels(int /*device*/, std::size_t /*num_rows*/, std::size_t /*dim*/,
                                std::size_t /*num_sites*/, int /*repeats*/) {
  throw UsageError("built without CUDA; configure with -DMOEFY_CUDA=ON");
}

std::vector<double> time_copy_to_cuda(int /*device*/, std::size_t /*bytes*/, int /*repeats*/) {
  throw UsageError("built without CUDA; configure with -DMOEFY_CUDA=ON");
}

}  // namespace moefy
