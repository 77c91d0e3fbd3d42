#include "cuda/cuda_backend.hpp"

#include <fmt/format.h>

#include "moefy/backend/cuda_memory.hpp"
#include "moefy/core/error.hpp"

namespace moefy {

namespace {

/// "12.4" of 12040; empty if there is none.
std::string version_text(int version) {
  return version == 0 ? "" : fmt::format("{}.{}", version / 1000, version % 1000 / 10);
}

struct DeviceCount {
  int count = 0;
  cudaError_t error = cudaSuccess;
};

DeviceCount count_devices() {
  DeviceCount found;
  found.error = cudaGetDeviceCount(&found.count);
  if (found.error == cudaSuccess) return found;
  cudaGetLastError();  // no driver or no device is an answer, not an error
  return {0, found.error};
}

}  // namespace

bool cuda_is_built() { return true; }

int cuda_device_count() { return count_devices().count; }

CudaVersions cuda_versions() {
  int driver = 0;
  int runtime = 0;
  if (cudaDriverGetVersion(&driver) != cudaSuccess) driver = 0;
  if (cudaRuntimeGetVersion(&runtime) != cudaSuccess) runtime = 0;
  return {version_text(driver), version_text(runtime)};
}

std::string cuda_obstacle() {
  const DeviceCount found = count_devices();
  if (found.count > 0) return "";
  if (found.error == cudaSuccess || found.error == cudaErrorNoDevice) {
    return "no device, or CUDA_VISIBLE_DEVICES hides it";
  }
  const CudaVersions versions = cuda_versions();
  if (versions.driver.empty()) return "no driver";
  if (found.error == cudaErrorInsufficientDriver) {
    return fmt::format("the driver supports CUDA {}, moefy was built with {}", versions.driver,
                       versions.runtime);
  }
  return cudaGetErrorString(found.error);
}

CudaDevice cuda_device(int device) {
  cudaDeviceProp properties{};
  cuda::check(cudaGetDeviceProperties(&properties, device), "asking for its properties");
  char place[32] = {};
  cuda::check(cudaDeviceGetPCIBusId(place, sizeof(place), device), "asking for its place");
  return {properties.name, place};
}

std::uint64_t free_cuda_memory(int device) {
  cuda::check(cudaSetDevice(device), "choosing the device");
  std::size_t free = 0;
  std::size_t total = 0;
  cuda::check(cudaMemGetInfo(&free, &total), "asking for free memory");
  return free;
}

void limit_cuda_memory(std::uint64_t bytes) { cuda::limit_device_memory(bytes); }

void reserve_cuda_memory(int device, std::uint64_t bytes) {
  cuda::check(cudaSetDevice(device), "choosing the device");
  cuda::reserve_device_memory(bytes);
}

std::uint64_t peak_cuda_memory() { return cuda::peak_device_memory(); }

std::unique_ptr<Backend> make_cuda_backend(int device, std::size_t num_threads) {
  const int count = cuda_device_count();
  if (device < 0 || device >= count) {
    throw DeviceError(
        count == 0 ? fmt::format("--backend cuda: no NVIDIA GPU can be used here ({}); use "
                                 "--backend cpu",
                                 cuda_obstacle())
                   : fmt::format("device {} is not there: this process sees {}", device, count));
  }
  return std::make_unique<CudaBackend>(device, num_threads);
}

}  // namespace moefy
