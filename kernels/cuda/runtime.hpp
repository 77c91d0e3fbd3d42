#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "cuda/device_memory.hpp"

namespace moefy::cuda {

/// Throws DeviceError: "device 0, ACTION: REASON".
[[noreturn]] void fail(const std::string& action, const std::string& reason);
/// The same unless the call succeeded.
void check(cudaError_t error, const std::string& action);

/// Of the calling thread; -1 if there is none.
int current_device();

/// Blocks of host memory that a device copies from and to without help.
void* allocate_pinned(std::size_t bytes);
void free_pinned(void* block, std::size_t bytes) noexcept;

/// Device or pinned host memory that grows and is kept from layer to layer; contents are lost when
/// it grows. Throws DeviceError naming the bytes wanted and the bytes free.
template <class T, void* (*allocate)(std::size_t), void (*release)(void*, std::size_t) noexcept>
class Buffer {
 public:
  Buffer() = default;
  ~Buffer() { release(data_, capacity_ * sizeof(T)); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  T* resize(std::size_t size) {
    if (size > capacity_) {
      release(std::exchange(data_, nullptr), capacity_ * sizeof(T));
      capacity_ = size_ = 0;
      data_ = static_cast<T*>(allocate(size * sizeof(T)));
      capacity_ = size;
    }
    size_ = size;
    return data_;
  }
  void swap(Buffer& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    std::swap(capacity_, other.capacity_);
  }
  T* data() const { return data_; }
  std::size_t size() const { return size_; }
  std::size_t bytes() const { return size_ * sizeof(T); }
  std::span<T> span() const { return {data_, size_}; }

 private:
  T* data_ = nullptr;
  std::size_t size_ = 0;
  std::size_t capacity_ = 0;
};

template <class T>
using DeviceBuffer = Buffer<T, allocate_device, free_device>;
template <class T>
using PinnedBuffer = Buffer<T, allocate_pinned, free_pinned>;

/// Until all that streams of work have queued is done, on all devices.
void wait_for_work() noexcept;

/// A queue of copies and kernels on the current device, in order.
class Stream {
 public:
  /// What is queued: work, or transfers to and from other ranks, which may wait for them.
  enum class Use { work, transfers };

  explicit Stream(Use use = Use::work);
  ~Stream();
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  /// Host to device, through pinned memory of the stream: `from` may be changed at once.
  template <class T>
  void upload(std::span<const T> from, T* to) {
    upload_bytes(std::as_bytes(from), to);
  }
  /// Pinned memory to device; it may be changed only after wait().
  template <class T>
  void upload_pinned(std::span<const T> from, T* to) {
    copy(to, from.data(), from.size_bytes(), cudaMemcpyHostToDevice);
  }
  /// Device to pinned memory of the caller; there after wait().
  template <class T>
  void download(const T* from, PinnedBuffer<T>& to) {
    copy(to.data(), from, to.bytes(), cudaMemcpyDeviceToHost);
  }
  /// Device to pinned memory of the stream, so that no error can leave a copy without its target.
  /// The values are there after wait(), until the next download after that.
  template <class T>
  std::span<const T> download(const T* from, std::size_t count) {
    auto* const to = static_cast<T*>(landing_place(count * sizeof(T)));
    copy(to, from, count * sizeof(T), cudaMemcpyDeviceToHost);
    return {to, count};
  }
  template <class T>
  void copy_on_device(const T* from, T* to, std::size_t count) {
    copy(to, from, count * sizeof(T), cudaMemcpyDeviceToDevice);
  }
  /// Every byte of [to, to + count) becomes `byte`.
  template <class T>
  void fill(T* to, int byte, std::size_t count) {
    fill_bytes(to, byte, count * sizeof(T));
  }
  /// Until everything queued is done; reports errors of kernels. Throws DeviceError.
  void wait();
  cudaStream_t handle() const { return stream_; }

 private:
  void copy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind);
  void upload_bytes(std::span<const std::byte> from, void* to);
  void fill_bytes(void* to, int byte, std::size_t bytes);
  void* landing_place(std::size_t bytes);

  cudaStream_t stream_ = nullptr;
  PinnedBuffer<std::byte> staging_;  // what uploads in flight come from
  std::size_t staged_ = 0;           // bytes of it that are in use
  std::vector<std::unique_ptr<PinnedBuffer<unsigned char>>> landing_;  // one a download in flight
  std::size_t landings_in_use_ = 0;
};

}  // namespace moefy::cuda
