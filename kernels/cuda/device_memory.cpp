#include "cuda/device_memory.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <map>
#include <mutex>

#include "cuda/runtime.hpp"
#include "moefy/core/error.hpp"

namespace moefy::cuda {
namespace {

constexpr double kMiB = 1024.0 * 1024.0;

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
    peak_ = std::max(peak_, held_);
  }
  void remove(std::size_t bytes) {
    const std::lock_guard lock(mutex_);
    held_ -= bytes;
  }
  std::size_t peak() {
    const std::lock_guard lock(mutex_);
    return peak_;
  }

 private:
  std::mutex mutex_;
  std::size_t limit_ = std::numeric_limits<std::size_t>::max();
  std::size_t held_ = 0;  ///< never above the limit
  std::size_t peak_ = 0;
};

Holdings& holdings() {
  static Holdings all;
  return all;
}

/// What reserve_device_memory() has taken, by device; kept as long as the process.
class Pools {
 public:
  /// Null if there is none.
  cudaMemPool_t of(int device) {
    const std::lock_guard lock(mutex_);
    const auto found = pools_.find(device);
    return found == pools_.end() ? nullptr : found->second;
  }
  void keep(int device, cudaMemPool_t pool) {
    const std::lock_guard lock(mutex_);
    pools_[device] = pool;
  }
  bool empty() {
    const std::lock_guard lock(mutex_);
    return pools_.empty();
  }

 private:
  std::mutex mutex_;
  std::map<int, cudaMemPool_t> pools_;
};

Pools& pools() {
  static Pools all;
  return all;
}

/// The default stream has nothing else to do, so waiting for it is waiting for the memory alone.
cudaError_t take_from_pool(cudaMemPool_t pool, void** block, std::size_t bytes) {
  const cudaError_t error = cudaMallocFromPoolAsync(block, bytes, pool, nullptr);
  return error == cudaSuccess ? cudaStreamSynchronize(nullptr) : error;
}

[[noreturn]] void fail_for_want_of(std::size_t bytes) {
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

/// From a pool, or, if it is null, from the driver.
void* allocate(std::size_t bytes, cudaMemPool_t pool) {
  holdings().add(bytes);
  void* block = nullptr;
  const cudaError_t error =
      pool == nullptr ? cudaMalloc(&block, bytes) : take_from_pool(pool, &block, bytes);
  if (error == cudaSuccess) return block;
  holdings().remove(bytes);
  if (error == cudaErrorMemoryAllocation) fail_for_want_of(bytes);
  check(error, "allocating memory");
  return nullptr;
}

cudaMemPool_t make_pool(int device) {
  cudaMemPoolProps properties{};
  properties.allocType = cudaMemAllocationTypePinned;
  properties.location.type = cudaMemLocationTypeDevice;
  properties.location.id = device;
  cudaMemPool_t pool = nullptr;
  check(cudaMemPoolCreate(&pool, &properties), "making a pool of memory");
  std::uint64_t kept = std::numeric_limits<std::uint64_t>::max();  // nothing goes back
  check(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &kept),
        "keeping the memory of a pool");
  return pool;
}

}  // namespace

void limit_device_memory(std::size_t bytes) { holdings().limit(bytes); }

std::size_t peak_device_memory() { return holdings().peak(); }

void reserve_device_memory(std::size_t bytes) {
  const int device = current_device();
  int has_pools = 0;
  check(cudaDeviceGetAttribute(&has_pools, cudaDevAttrMemoryPoolsSupported, device),
        "asking for its properties");
  if (has_pools == 0 || bytes == 0) return;
  cudaMemPool_t pool = pools().of(device);
  if (pool == nullptr) pool = make_pool(device);
  void* whole = nullptr;
  const cudaError_t error = take_from_pool(pool, &whole, bytes);
  if (error == cudaErrorMemoryAllocation) fail_for_want_of(bytes);
  check(error, "reserving memory");
  check(cudaFree(whole), "reserving memory");
  pools().keep(device, pool);
}

void* allocate_device(std::size_t bytes) { return allocate(bytes, pools().of(current_device())); }

void* allocate_device_apart(std::size_t bytes) { return allocate(bytes, nullptr); }

void free_device(void* block, std::size_t bytes) noexcept {
  if (block == nullptr) return;
  // A block of a pool is anybody's at once; the driver waits by itself.
  if (!pools().empty()) wait_for_work();
  cudaFree(block);
  holdings().remove(bytes);
}

}  // namespace moefy::cuda
