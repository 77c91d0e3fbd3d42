#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "cuda_runtime.h"
#include "simt.hpp"

namespace simt {

/// Work that waits until somebody waits for it: who reads a result too early reads the old one.
class Stream {
 public:
  void add(std::function<void()> work) {
    add_step([work = std::move(work)] {
      work();
      return true;
    });
  }
  void add_step(std::function<bool()> step) { steps_.push_back(std::move(step)); }
  /// Does what can be done now; true if that is all.
  bool advance() {
    while (!steps_.empty()) {
      if (!steps_.front()()) return false;
      steps_.pop_front();
    }
    return true;
  }

 private:
  std::deque<std::function<bool()>> steps_;
};

/// Passed once the stream has come to where it was recorded.
class Event {
 public:
  void record(Stream& stream) {
    stream_ = &stream;
    passed_ = std::make_shared<bool>(false);
    stream.add([passed = passed_] { *passed = true; });
  }
  bool query() {
    if (!*passed_) stream_->advance();
    return *passed_;
  }

 private:
  Stream* stream_ = nullptr;
  std::shared_ptr<bool> passed_ = std::make_shared<bool>(true);
};

namespace {

int devices_in_environment() {
  const char* text = std::getenv("MOEFY_SIMULATED_DEVICES");
  return text == nullptr ? 0 : std::atoi(text);
}

/// Whether the variable `name` says this rank's number, or nothing.
bool means_this_rank(const char* name) {
  const char* const wanted = std::getenv(name);
  const char* const rank = std::getenv("OMPI_COMM_WORLD_RANK");
  return wanted == nullptr || (rank != nullptr && std::strcmp(wanted, rank) == 0);
}

/// All devices share one memory, and one lock: what is tested is the code above.
struct State {
  State() {
    const char* const failure = std::getenv("MOEFY_SIMULATED_FAILURE");
    if (failure == nullptr || !means_this_rank("MOEFY_SIMULATED_FAILURE_RANK")) return;
    const std::string text = failure;
    const std::size_t colon = text.find(':');
    failing_call = text.substr(0, colon);
    calls_before_failure = colon == std::string::npos ? 0 : std::stoi(text.substr(colon + 1)) - 1;
  }
  std::recursive_mutex mutex;
  int device_count = devices_in_environment();
  std::size_t memory = std::size_t{1} << 30;
  std::size_t in_use = 0;
  std::size_t peak = 0;
  std::size_t num_allocations = 0;
  std::map<const unsigned char*, std::size_t> device_blocks;
  std::map<const unsigned char*, std::size_t> pinned_blocks;
  std::set<Stream*> streams;
  std::string failing_call;
  int calls_before_failure = 0;
};

State& state() {
  static State the_state;
  return the_state;
}

thread_local int current_device = 0;
thread_local cudaError_t last_error = cudaSuccess;

bool inside(const std::map<const unsigned char*, std::size_t>& blocks, const void* address,
            std::size_t bytes) {
  const auto* const first = static_cast<const unsigned char*>(address);
  auto block = blocks.upper_bound(first);
  if (block == blocks.begin()) return false;
  --block;
  return first + bytes <= block->first + block->second;
}

bool fails(const char* call) {
  State& own = state();
  return own.failing_call == call && --own.calls_before_failure < 0;
}

cudaError_t failed(cudaError_t error) {
  last_error = error;
  return error;
}

cudaError_t allocate(std::map<const unsigned char*, std::size_t>& blocks, void** block,
                     std::size_t bytes) {
  constexpr std::size_t kAlignment = 256;  // as the runtime's
  void* aligned = nullptr;
  if (posix_memalign(&aligned, kAlignment, std::max<std::size_t>(bytes, 1)) != 0) {
    return failed(cudaErrorMemoryAllocation);
  }
  auto* const memory = static_cast<unsigned char*>(aligned);
  std::memset(memory, 0xcd, bytes);
  ++state().num_allocations;
  blocks[memory] = bytes;
  *block = memory;
  return cudaSuccess;
}

std::size_t blocks_per_multiprocessor(unsigned block_size) {
  return std::max(static_cast<unsigned>(kThreadsPerMultiprocessor) / block_size, 1U);
}
std::size_t resident_blocks(unsigned block_size) {
  return kMultiprocessors * blocks_per_multiprocessor(block_size);
}

/// Until the stream has nothing left. Others may go on meanwhile: what it waits for may be theirs.
void run(Stream* stream) {
  for (;;) {
    {
      const std::lock_guard lock(state().mutex);
      if (stream->advance()) return;
    }
    std::this_thread::yield();
  }
}

void run_all() {
  std::set<Stream*> streams;
  {
    const std::lock_guard lock(state().mutex);
    streams = state().streams;
  }
  for (Stream* stream : streams) run(stream);
}

}  // namespace

void set_device_count(int count) { state().device_count = count; }
void set_device_memory(std::size_t bytes) { state().memory = bytes; }
std::size_t device_memory_in_use() { return state().in_use; }
std::size_t peak_device_memory() { return std::exchange(state().peak, state().in_use); }
std::size_t num_allocations() { return state().num_allocations; }

void fail(const std::string& call, int nth) {
  state().failing_call = call;
  state().calls_before_failure = nth - 1;
}

void add_to_stream(Stream* stream, std::function<bool()> step) {
  const std::lock_guard lock(state().mutex);
  stream->add_step(std::move(step));
}

bool call_fails(const char* call) {
  const std::lock_guard lock(state().mutex);
  return fails(call);
}

bool is_device_memory(const void* address, std::size_t bytes) {
  const std::lock_guard lock(state().mutex);
  return inside(state().device_blocks, address, bytes);
}

void launch_later(dim3 grid, unsigned block_size, std::size_t shared_bytes, Stream* stream,
                  Blocks blocks, std::function<void()> kernel) {
  const std::lock_guard lock(state().mutex);
  const std::size_t num_blocks = std::size_t{grid.x} * grid.y * grid.z;
  if (fails("launch") || block_size > 1024 || shared_bytes > 48 * 1024 ||
      (blocks == Blocks::together && num_blocks > resident_blocks(block_size))) {
    failed(cudaErrorLaunchFailure);
    return;
  }
  stream->add([=] { run_grid(grid, block_size, shared_bytes, blocks, kernel); });
}

}  // namespace simt

using simt::state;

const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "no error";
    case cudaErrorInvalidValue:
      return "invalid argument";
    case cudaErrorMemoryAllocation:
      return "out of memory";
    case cudaErrorInsufficientDriver:
      return "CUDA driver version is insufficient for CUDA runtime version";
    case cudaErrorNoDevice:
      return "no CUDA-capable device is detected";
    case cudaErrorInvalidDevice:
      return "invalid device ordinal";
    case cudaErrorNotReady:
      return "device not ready";
    case cudaErrorLaunchFailure:
      return "unspecified launch failure";
  }
  return "unknown error";
}

cudaError_t cudaGetLastError() { return std::exchange(simt::last_error, cudaSuccess); }

cudaError_t cudaDriverGetVersion(int* version) {
  *version = 12040;
  return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = 12080;
  return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 0;
  if (simt::call_fails("cudaGetDeviceCount")) return simt::failed(cudaErrorInsufficientDriver);
  *count = state().device_count;
  return *count > 0 ? cudaSuccess : simt::failed(cudaErrorNoDevice);
}

cudaError_t cudaSetDevice(int device) {
  if (state().device_count == 0) return simt::failed(cudaErrorNoDevice);
  if (device < 0 || device >= state().device_count) return simt::failed(cudaErrorInvalidDevice);
  simt::current_device = device;
  return cudaSuccess;
}

cudaError_t cudaGetDevice(int* device) {
  *device = simt::current_device;
  return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  if (device < 0 || device >= state().device_count) return simt::failed(cudaErrorInvalidDevice);
  std::strcpy(properties->name, "simulated device");
  properties->totalGlobalMem = state().memory;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int /*device*/) {
  *value = attribute == cudaDevAttrMultiProcessorCount ? simt::kMultiprocessors
                                                       : simt::kThreadsPerMultiprocessor;
  return cudaSuccess;
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void* /*kernel*/,
                                                          int block_size,
                                                          std::size_t /*shared_bytes*/) {
  *blocks = static_cast<int>(simt::blocks_per_multiprocessor(static_cast<unsigned>(block_size)));
  return cudaSuccess;
}

cudaError_t cudaDeviceGetPCIBusId(char* place, int length, int device) {
  if (device < 0 || device >= state().device_count) return simt::failed(cudaErrorInvalidDevice);
  std::snprintf(place, static_cast<std::size_t>(length), "0000:00:%02x.0", device);
  return cudaSuccess;
}

cudaError_t cudaMalloc(void** block, std::size_t bytes) {
  const std::lock_guard lock(state().mutex);
  if (simt::fails("cudaMalloc") || bytes > state().memory - state().in_use) {
    return simt::failed(cudaErrorMemoryAllocation);
  }
  state().in_use += bytes;
  state().peak = std::max(state().peak, state().in_use);
  return simt::allocate(state().device_blocks, block, bytes);
}

cudaError_t cudaFree(void* block) {
  if (block == nullptr) return cudaSuccess;
  simt::run_all();
  const std::lock_guard lock(state().mutex);
  const auto entry = state().device_blocks.find(static_cast<unsigned char*>(block));
  if (entry == state().device_blocks.end()) return simt::failed(cudaErrorInvalidValue);
  state().in_use -= entry->second;
  state().device_blocks.erase(entry);
  std::free(block);
  return cudaSuccess;
}

cudaError_t cudaMallocHost(void** block, std::size_t bytes) {
  const std::lock_guard lock(state().mutex);
  if (simt::fails("cudaMallocHost")) return simt::failed(cudaErrorMemoryAllocation);
  return simt::allocate(state().pinned_blocks, block, bytes);
}

cudaError_t cudaFreeHost(void* block) {
  if (block == nullptr) return cudaSuccess;
  simt::run_all();
  const std::lock_guard lock(state().mutex);
  if (state().pinned_blocks.erase(static_cast<unsigned char*>(block)) == 0) {
    return simt::failed(cudaErrorInvalidValue);
  }
  std::free(block);
  return cudaSuccess;
}

cudaError_t cudaMemGetInfo(std::size_t* free_bytes, std::size_t* total) {
  *total = state().memory;
  *free_bytes = state().memory - state().in_use;
  return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned /*flags*/) {
  const std::lock_guard lock(state().mutex);
  if (simt::fails("cudaStreamCreate")) return simt::failed(cudaErrorMemoryAllocation);
  *stream = new simt::Stream;
  state().streams.insert(*stream);
  return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  simt::run(stream);
  const std::lock_guard lock(state().mutex);
  state().streams.erase(stream);
  delete stream;
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  if (simt::call_fails("cudaStreamSynchronize")) return simt::failed(cudaErrorLaunchFailure);
  simt::run(stream);
  return cudaSuccess;
}

cudaError_t cudaDeviceSynchronize() {
  simt::run_all();
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  const std::lock_guard lock(state().mutex);
  const bool from_device = simt::inside(state().device_blocks, from, bytes);
  const bool to_device = simt::inside(state().device_blocks, to, bytes);
  if (simt::fails("cudaMemcpyAsync") || from_device != (kind != cudaMemcpyHostToDevice) ||
      to_device != (kind != cudaMemcpyDeviceToHost)) {
    return simt::failed(cudaErrorInvalidValue);
  }
  if (kind == cudaMemcpyHostToDevice && !simt::inside(state().pinned_blocks, from, bytes)) {
    // The runtime takes memory that is not pinned before it returns.
    const auto* const first = static_cast<const unsigned char*>(from);
    stream->add([to, staged = std::vector<unsigned char>(first, first + bytes)] {
      std::memcpy(to, staged.data(), staged.size());
    });
  } else {
    stream->add([=] { std::memmove(to, from, bytes); });
  }
  return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void* to, int byte, std::size_t bytes, cudaStream_t stream) {
  const std::lock_guard lock(state().mutex);
  if (simt::fails("cudaMemsetAsync") || !simt::inside(state().device_blocks, to, bytes)) {
    return simt::failed(cudaErrorInvalidValue);
  }
  stream->add([=] { std::memset(to, byte, bytes); });
  return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned /*flags*/) {
  if (simt::call_fails("cudaEventCreate")) return simt::failed(cudaErrorMemoryAllocation);
  *event = new simt::Event;
  return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  const std::lock_guard lock(state().mutex);
  if (simt::fails("cudaEventRecord")) return simt::failed(cudaErrorInvalidValue);
  event->record(*stream);
  return cudaSuccess;
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
  const std::lock_guard lock(state().mutex);
  if (simt::fails("cudaEventQuery")) return simt::failed(cudaErrorLaunchFailure);
  return event->query() ? cudaSuccess : cudaErrorNotReady;
}
