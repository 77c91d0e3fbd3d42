#pragma once

#include <cstddef>
#include <functional>
#include <string>

/// What tests may ask of the simulated devices.
namespace simt {

inline constexpr int kMultiprocessors = 2;
inline constexpr int kThreadsPerMultiprocessor = 128;

/// How many devices there are; at the start as many as the variable MOEFY_SIMULATED_DEVICES says
/// (or none), of which CUDA_VISIBLE_DEVICES chooses and orders.
void set_device_count(int count);
/// Memory of a device; at the start 1 GiB.
void set_device_memory(std::size_t bytes);
std::size_t device_memory_in_use();
/// The most that was in use since this was last asked.
std::size_t peak_device_memory();
/// How often memory was taken so far: calls of cudaMalloc and cudaMallocHost, and times that a pool
/// grew.
std::size_t num_allocations();

/// From the `nth` call of the runtime function `call` on ("cudaMalloc", "launch", "growing a pool",
/// …; 1: the next one) the call fails. An empty name ends it. At the start the variable
/// MOEFY_SIMULATED_FAILURE
/// ("launch:3") says it, for the rank in MOEFY_SIMULATED_FAILURE_RANK or for all.
void fail(const std::string& call, int nth = 1);

class Stream;

// For libraries that stand beside the runtime, as the simulated NCCL does.

/// Queues work on a stream; it is tried again until it returns true.
void add_to_stream(Stream* stream, std::function<bool()> step);
/// Whether this call should fail, as fail() wants.
bool call_fails(const char* call);
int device_of(const Stream* stream);
/// Whether this is memory of the device of the stream.
bool is_memory_for(const Stream* stream, const void* address, std::size_t bytes);

}  // namespace simt
