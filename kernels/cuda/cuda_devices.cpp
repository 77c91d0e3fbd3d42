#include "cuda/cuda_backend.hpp"

#include <fmt/format.h>

#include "moefy/backend/cuda_memory.hpp"
#include "moefy/core/error.hpp"

namespace moefy {

bool cuda_is_built() { return true; }

int cuda_device_count() {
  int count = 0;
  if (cudaGetDeviceCount(&count) == cudaSuccess) return count;
  cudaGetLastError();  // no driver or no device is an answer, not an error
  return 0;
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
        count == 0 ? "--backend cuda: no NVIDIA GPU can be used here (no driver, no device, "
                     "or CUDA_VISIBLE_DEVICES hides it); use --backend cpu"
                   : fmt::format("device {} is not there: this process sees {}", device, count));
  }
  return std::make_unique<CudaBackend>(device, num_threads);
}

}  // namespace moefy
