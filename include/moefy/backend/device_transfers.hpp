#pragma once

#include <cstddef>
#include <span>

namespace moefy {

/// Memory of a device, and copies in an order of their own beside what a backend computes. For one
/// thread at a time. All functions throw DeviceError.
class DeviceTransfers {
 public:
  virtual ~DeviceTransfers() = default;
  /// Device memory and pinned host memory, kept as long as this.
  virtual std::span<std::byte> allocate(std::size_t bytes) = 0;
  virtual std::span<std::byte> allocate_pinned(std::size_t bytes) = 0;

  /// The calling thread works with the device from now on.
  virtual void enter() = 0;
  /// Pinned host memory to the device; device to device. They return at once.
  virtual void upload(std::span<const std::byte> from, std::byte* to) = 0;
  virtual void copy(std::span<const std::byte> from, std::byte* to) = 0;
  /// The queue itself (a cudaStream_t), for a library that adds to it.
  virtual void* stream() = 0;
  /// A mark behind everything queued so far, and whether the device has passed it (then the mark is
  /// forgotten).
  virtual std::size_t mark() = 0;
  virtual bool passed(std::size_t mark) = 0;
  virtual void wait() = 0;
};

}  // namespace moefy
