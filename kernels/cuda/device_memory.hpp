#pragma once

#include <cuda_runtime.h>

#include <cstddef>

namespace moefy::cuda {

/// How many bytes of device memory this process may hold at once; 0: what there is.
void limit_device_memory(std::size_t bytes);
/// The most that it has held so far.
std::size_t peak_device_memory();

/// Takes `bytes` of the current device at once, for all of its blocks to come: while they fit, no
/// call asks the driver for memory or gives it back. Later calls add what is missing. No effect
/// where the device has no memory pools. DeviceError if so many are not free.
void reserve_device_memory(std::size_t bytes);

/// Blocks aligned to 256 bytes. DeviceError naming the bytes wanted and the bytes free.
void* allocate_device(std::size_t bytes);
/// The same beside what was reserved: libraries that share memory between processes may want it.
void* allocate_device_apart(std::size_t bytes);
/// Of both. Waits for what streams of work have queued so far: one of them may use the block.
void free_device(void* block, std::size_t bytes) noexcept;

}  // namespace moefy::cuda
