#pragma once

#include <cstddef>
#include <string>

/// What tests may ask of the simulated devices.
namespace simt {

inline constexpr int kMultiprocessors = 2;
inline constexpr int kThreadsPerMultiprocessor = 128;

/// How many devices there are; at the start as many as the variable MOEFY_SIMULATED_DEVICES says,
/// or none.
void set_device_count(int count);
/// Memory of a device; at the start 1 GiB.
void set_device_memory(std::size_t bytes);
std::size_t device_memory_in_use();

/// From the `nth` call of the runtime function `call` on ("cudaMalloc", "launch", …; 1: the next
/// one) the call fails. An empty name ends it.
void fail(const std::string& call, int nth = 1);

}  // namespace simt
