#pragma once

#include <cstdint>

namespace moefy {

/// Takes `bytes` of GPU `device` before the work, so that it needs no more while they suffice;
/// later calls add what is missing. DeviceError if so many are not free.
void reserve_cuda_memory(int device, std::uint64_t bytes);

/// The most GPU memory that this process has held for its own work so far, bytes; 0 without CUDA.
std::uint64_t peak_cuda_memory();

}  // namespace moefy
