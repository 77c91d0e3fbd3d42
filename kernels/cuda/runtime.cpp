#include "cuda/runtime.hpp"

#include <fmt/format.h>

#include <limits>
#include <mutex>

#include "moefy/core/error.hpp"

namespace moefy::cuda {
namespace {

constexpr double kMiB = 1024.0 * 1024.0;

int current_device() {
  int device = -1;
  return cudaGetDevice(&device) == cudaSuccess ? device : -1;
}

/// The device memory that this process holds.
class Holdings {
 public:
  void limit(std::size_t bytes) {
    const std::lock_guard lock(mutex_);
    limit_ = bytes == 0 ? std::numeric_limits<std::size_t>::max() : bytes;
  }
  /// Throws DeviceError if the limit does not allow it.
  void add(std::size_t bytes) {
    const std::lock_guard lock(mutex_);
    if (bytes > limit_ - held_) {
      throw DeviceError(
          fmt::format("device {}: {:.1f} MiB more are needed, {:.1f} of {:.1f} MiB are in use "
                      "(--device-memory); allow more, or take the CPU",
                      current_device(), static_cast<double>(bytes) / kMiB,
                      static_cast<double>(held_) / kMiB, static_cast<double>(limit_) / kMiB));
    }
    held_ += bytes;
  }
  void remove(std::size_t bytes) {
    const std::lock_guard lock(mutex_);
    held_ -= bytes;
  }

 private:
  std::mutex mutex_;
  std::size_t limit_ = std::numeric_limits<std::size_t>::max();
  std::size_t held_ = 0;  ///< never above the limit
};

Holdings& holdings() {
  static Holdings all;
  return all;
}

}  // namespace

void limit_device_memory(std::size_t bytes) { holdings().limit(bytes); }

void fail(const std::string& action, const std::string& reason) {
  throw DeviceError(fmt::format("device {}, {}: {}", current_device(), action, reason));
}

void check(cudaError_t error, const std::string& action) {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // the next launch is not to blame
  fail(action, cudaGetErrorString(error));
}

void* allocate_device(std::size_t bytes) {
  holdings().add(bytes);
  void* block = nullptr;
  const cudaError_t error = cudaMalloc(&block, bytes);
  if (error == cudaSuccess) return block;
  holdings().remove(bytes);
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    std::size_t free = 0;
    std::size_t total = 0;
    check(cudaMemGetInfo(&free, &total), "asking for free memory");
    throw DeviceError(fmt::format(
        "device {}: {:.1f} MiB more are needed, {:.1f} of {:.1f} MiB are free; use a device with "
        "more memory, or the CPU",
        current_device(), static_cast<double>(bytes) / kMiB, static_cast<double>(free) / kMiB,
        static_cast<double>(total) / kMiB));
  }
  check(error, "allocating memory");
  return nullptr;
}

void* allocate_pinned(std::size_t bytes) {
  void* block = nullptr;
  check(cudaMallocHost(&block, bytes),
        fmt::format("pinning {:.1f} MiB of host memory", static_cast<double>(bytes) / kMiB));
  return block;
}

void free_device(void* block, std::size_t bytes) noexcept {
  cudaFree(block);
  holdings().remove(bytes);
}
void free_pinned(void* block, std::size_t /*bytes*/) noexcept { cudaFreeHost(block); }

Stream::Stream() {
  check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "making a stream");
}

Stream::~Stream() {
  cudaStreamSynchronize(stream_);
  cudaStreamDestroy(stream_);
}

void Stream::copy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) {
  if (bytes == 0) return;
  check(cudaMemcpyAsync(to, from, bytes, kind, stream_), "copying memory");
}

void Stream::fill_bytes(void* to, int byte, std::size_t bytes) {
  if (bytes == 0) return;
  check(cudaMemsetAsync(to, byte, bytes, stream_), "filling memory");
}

void* Stream::landing_place(std::size_t bytes) {
  if (landings_in_use_ == landing_.size()) {
    landing_.push_back(std::make_unique<PinnedBuffer<unsigned char>>());
  }
  return landing_[landings_in_use_++]->resize(bytes);
}

void Stream::wait() {
  check(cudaStreamSynchronize(stream_), "running kernels");
  landings_in_use_ = 0;
}

}  // namespace moefy::cuda
