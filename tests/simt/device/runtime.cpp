#include <sanitizer/asan_interface.h>

#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <numeric>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "cuda_runtime.h"
#include "simt.hpp"

namespace simt {

/// Work that waits until somebody waits for it: who reads a result too early reads the old one.
class Stream {
 public:
  explicit Stream(int device) : device_(device) {}
  int device() const { return device_; }
  void add(std::function<void()> work) {
    add_step([work = std::move(work)] {
      work();
      return true;
    });
  }
  void add_step(std::function<bool()> step) { steps_.push_back(std::move(step)); }
  /// Does what can be done now; true if that is all.
  bool advance();

 private:
  int device_;
  std::deque<std::function<bool()>> steps_;
};

/// Passed once the stream has come to where it was recorded.
class Event {
 public:
  explicit Event(int device) : device_(device) {}
  int device() const { return device_; }
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
  int device_;
  Stream* stream_ = nullptr;
  std::shared_ptr<bool> passed_ = std::make_shared<bool>(true);
};

/// Memory that a device has handed out for good.
struct MemoryPool {
  std::size_t used = 0;
  std::size_t held = 0;
};

namespace {

std::vector<int> first_devices(int count) {
  std::vector<int> devices(static_cast<std::size_t>(count));
  std::iota(devices.begin(), devices.end(), 0);
  return devices;
}

/// The numbers in CUDA_VISIBLE_DEVICES, up to the first that is none of a device: the runtime
/// reads no further.
std::vector<int> devices_in_environment() {
  const char* const text = std::getenv("MOEFY_SIMULATED_DEVICES");
  const int count = text == nullptr ? 0 : std::atoi(text);
  const char* const visible = std::getenv("CUDA_VISIBLE_DEVICES");
  if (visible == nullptr) return first_devices(count);
  std::vector<int> devices;
  for (std::string_view rest = visible;;) {
    const std::string_view name = rest.substr(0, rest.find(','));
    int device = -1;
    const auto [end, error] = std::from_chars(name.begin(), name.end(), device);
    if (error != std::errc() || end != name.end() || device < 0 || device >= count) return devices;
    devices.push_back(device);
    if (name.size() == rest.size()) return devices;
    rest.remove_prefix(name.size() + 1);
  }
}

/// Whether the variable `name` says this rank's number, or nothing.
bool means_this_rank(const char* name) {
  const char* const wanted = std::getenv(name);
  const char* const rank = std::getenv("OMPI_COMM_WORLD_RANK");
  return wanted == nullptr || (rank != nullptr && std::strcmp(wanted, rank) == 0);
}

struct Allocation {
  std::size_t bytes;
  int device;
};
using Allocations = std::map<const unsigned char*, Allocation>;

/// All devices share the room for their memory, and one lock: what is tested is the code above.
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
  std::vector<int> devices = devices_in_environment();  ///< that are visible: their numbers
  std::size_t memory = std::size_t{1} << 30;
  std::size_t in_use = 0;
  std::size_t peak = 0;
  std::size_t num_allocations = 0;
  Allocations device_blocks;
  Allocations pinned_blocks;
  std::deque<MemoryPool> pools;
  std::map<const void*, MemoryPool*> pool_of_block;
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

bool is_device(int device) {
  return device >= 0 && static_cast<std::size_t>(device) < state().devices.size();
}

/// The allocation that holds all of these bytes, or none.
const Allocation* find(const Allocations& blocks, const void* address, std::size_t bytes) {
  const auto* const first = static_cast<const unsigned char*>(address);
  auto block = blocks.upper_bound(first);
  if (block == blocks.begin()) return nullptr;
  --block;
  return first + bytes <= block->first + block->second.bytes ? &block->second : nullptr;
}

bool is_memory_of(int device, const void* address, std::size_t bytes) {
  const Allocation* const block = find(state().device_blocks, address, bytes);
  return block != nullptr && block->device == device;
}

/// AddressSanitizer lets nobody touch the memory of a device but what runs on that device, while it
/// runs: neither the host nor another device can do that on a real machine.
class DeviceAtWork {
 public:
  explicit DeviceAtWork(int device) : device_(device) {
    for (const auto& [memory, block] : state().device_blocks) {
      if (block.device == device_) ASAN_UNPOISON_MEMORY_REGION(memory, block.bytes);
    }
  }
  ~DeviceAtWork() {
    for (const auto& [memory, block] : state().device_blocks) {
      if (block.device == device_) ASAN_POISON_MEMORY_REGION(memory, block.bytes);
    }
  }
  DeviceAtWork(const DeviceAtWork&) = delete;
  DeviceAtWork& operator=(const DeviceAtWork&) = delete;

 private:
  int device_;
};

bool fails(const char* call) {
  State& own = state();
  return own.failing_call == call && --own.calls_before_failure < 0;
}

cudaError_t failed(cudaError_t error) {
  last_error = error;
  return error;
}

cudaError_t allocate(Allocations& blocks, void** block, std::size_t bytes) {
  constexpr std::size_t kAlignment = 256;  // as the runtime's
  void* aligned = nullptr;
  if (posix_memalign(&aligned, kAlignment, std::max<std::size_t>(bytes, 1)) != 0) {
    return failed(cudaErrorMemoryAllocation);
  }
  auto* const memory = static_cast<unsigned char*>(aligned);
  std::memset(memory, 0xcd, bytes);
  blocks[memory] = {bytes, current_device};
  *block = memory;
  return cudaSuccess;
}

cudaError_t allocate_on_device(void** block, std::size_t bytes) {
  const cudaError_t error = allocate(state().device_blocks, block, bytes);
  if (error == cudaSuccess) ASAN_POISON_MEMORY_REGION(*block, bytes);
  return error;
}

/// Takes memory of the device; false if there is not so much.
bool take(std::size_t bytes) {
  State& own = state();
  if (bytes > own.memory - own.in_use) return false;
  ++own.num_allocations;
  own.in_use += bytes;
  own.peak = std::max(own.peak, own.in_use);
  return true;
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

/// Of one device, or of all.
void run_all(std::optional<int> device = {}) {
  std::set<Stream*> streams;
  {
    const std::lock_guard lock(state().mutex);
    streams = state().streams;
  }
  for (Stream* stream : streams) {
    if (!device || stream->device() == *device) run(stream);
  }
}

}  // namespace

bool Stream::advance() {
  if (steps_.empty()) return true;
  const DeviceAtWork at_work(device_);
  while (!steps_.empty()) {
    if (!steps_.front()()) return false;
    steps_.pop_front();
  }
  return true;
}

void set_device_count(int count) { state().devices = first_devices(count); }
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

int device_of(const Stream* stream) { return stream->device(); }

bool is_memory_for(const Stream* stream, const void* address, std::size_t bytes) {
  const std::lock_guard lock(state().mutex);
  return is_memory_of(stream->device(), address, bytes);
}

void launch_later(dim3 grid, unsigned block_size, std::size_t shared_bytes, Stream* stream,
                  Blocks blocks, std::function<void()> kernel) {
  const std::lock_guard lock(state().mutex);
  const std::size_t num_blocks = std::size_t{grid.x} * grid.y * grid.z;
  if (stream->device() != current_device) {
    failed(cudaErrorInvalidResourceHandle);
    return;
  }
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
    case cudaErrorInvalidResourceHandle:
      return "invalid resource handle";
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
  *count = static_cast<int>(state().devices.size());
  return *count > 0 ? cudaSuccess : simt::failed(cudaErrorNoDevice);
}

cudaError_t cudaSetDevice(int device) {
  if (state().devices.empty()) return simt::failed(cudaErrorNoDevice);
  if (!simt::is_device(device)) return simt::failed(cudaErrorInvalidDevice);
  simt::current_device = device;
  return cudaSuccess;
}

cudaError_t cudaGetDevice(int* device) {
  *device = simt::current_device;
  return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  if (!simt::is_device(device)) return simt::failed(cudaErrorInvalidDevice);
  std::strcpy(properties->name, "simulated device");
  properties->totalGlobalMem = state().memory;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int /*device*/) {
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount:
      *value = simt::kMultiprocessors;
      break;
    case cudaDevAttrMaxThreadsPerMultiProcessor:
      *value = simt::kThreadsPerMultiprocessor;
      break;
    case cudaDevAttrMemoryPoolsSupported:
      *value = 1;
      break;
  }
  return cudaSuccess;
}

cudaError_t cudaDeviceGetPCIBusId(char* place, int length, int device) {
  if (!simt::is_device(device)) return simt::failed(cudaErrorInvalidDevice);
  std::snprintf(place, static_cast<std::size_t>(length), "0000:00:%02x.0",
                static_cast<unsigned>(state().devices[static_cast<std::size_t>(device)]));
  return cudaSuccess;
}

cudaError_t cudaMalloc(void** block, std::size_t bytes) {
  const std::lock_guard lock(state().mutex);
  if (simt::fails("cudaMalloc") || !simt::take(bytes)) {
    return simt::failed(cudaErrorMemoryAllocation);
  }
  return simt::allocate_on_device(block, bytes);
}

cudaError_t cudaMemPoolCreate(cudaMemPool_t* pool, const cudaMemPoolProps* properties) {
  if (properties->allocType != cudaMemAllocationTypePinned ||
      properties->location.type != cudaMemLocationTypeDevice ||
      !simt::is_device(properties->location.id)) {
    return simt::failed(cudaErrorInvalidValue);
  }
  const std::lock_guard lock(state().mutex);
  *pool = &state().pools.emplace_back();
  return cudaSuccess;
}

cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t /*pool*/, cudaMemPoolAttr attribute,
                                    void* value) {
  // Pools keep what they have: what another threshold would do is not simulated.
  const bool keeps_all = attribute == cudaMemPoolAttrReleaseThreshold &&
                         *static_cast<std::uint64_t*>(value) == ~std::uint64_t{0};
  return keeps_all ? cudaSuccess : simt::failed(cudaErrorInvalidValue);
}

cudaError_t cudaMallocFromPoolAsync(void** block, std::size_t bytes, cudaMemPool_t pool,
                                    cudaStream_t stream) {
  if (stream != nullptr) return simt::failed(cudaErrorInvalidValue);
  const std::lock_guard lock(state().mutex);
  if (simt::fails("cudaMallocFromPoolAsync")) return simt::failed(cudaErrorMemoryAllocation);
  const std::size_t used = pool->used + bytes;
  if (used > pool->held) {
    if (simt::fails("growing a pool") || !simt::take(used - pool->held)) {
      return simt::failed(cudaErrorMemoryAllocation);
    }
    pool->held = used;
  }
  const cudaError_t error = simt::allocate_on_device(block, bytes);
  if (error != cudaSuccess) return error;
  pool->used = used;
  state().pool_of_block[*block] = pool;
  return cudaSuccess;
}

cudaError_t cudaFree(void* block) {
  if (block == nullptr) return cudaSuccess;
  bool from_pool = false;
  {
    const std::lock_guard lock(state().mutex);
    from_pool = state().pool_of_block.contains(block);
  }
  if (!from_pool) simt::run_all();  // nobody waits for users of a pool's block
  const std::lock_guard lock(state().mutex);
  const auto entry = state().device_blocks.find(static_cast<unsigned char*>(block));
  if (entry == state().device_blocks.end()) return simt::failed(cudaErrorInvalidValue);
  if (from_pool) {
    state().pool_of_block[block]->used -= entry->second.bytes;
    state().pool_of_block.erase(block);
  } else {
    state().in_use -= entry->second.bytes;
  }
  state().device_blocks.erase(entry);
  std::free(block);
  return cudaSuccess;
}

cudaError_t cudaMallocHost(void** block, std::size_t bytes) {
  const std::lock_guard lock(state().mutex);
  if (simt::fails("cudaMallocHost")) return simt::failed(cudaErrorMemoryAllocation);
  ++state().num_allocations;
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
  *stream = new simt::Stream(simt::current_device);
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
  if (stream == nullptr) return cudaSuccess;  // the default one, on which nothing is queued
  const bool fails = simt::call_fails("cudaStreamSynchronize");
  simt::run(stream);  // what fails is told when all has ended
  return fails ? simt::failed(cudaErrorLaunchFailure) : cudaSuccess;
}

cudaError_t cudaDeviceSynchronize() {
  simt::run_all(simt::current_device);
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  const std::lock_guard lock(state().mutex);
  // The runtime would also copy for a stream of another device; nothing here should ask for that.
  const bool from_device = simt::is_memory_of(stream->device(), from, bytes);
  const bool to_device = simt::is_memory_of(stream->device(), to, bytes);
  if (simt::fails("cudaMemcpyAsync") || from_device != (kind != cudaMemcpyHostToDevice) ||
      to_device != (kind != cudaMemcpyDeviceToHost)) {
    return simt::failed(cudaErrorInvalidValue);
  }
  if (kind == cudaMemcpyHostToDevice && simt::find(state().pinned_blocks, from, bytes) == nullptr) {
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
  if (simt::fails("cudaMemsetAsync") || !simt::is_memory_of(stream->device(), to, bytes)) {
    return simt::failed(cudaErrorInvalidValue);
  }
  if (stream->device() != simt::current_device) {
    return simt::failed(cudaErrorInvalidResourceHandle);
  }
  stream->add([=] { std::memset(to, byte, bytes); });
  return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned /*flags*/) {
  if (simt::call_fails("cudaEventCreate")) return simt::failed(cudaErrorMemoryAllocation);
  *event = new simt::Event(simt::current_device);
  return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  const std::lock_guard lock(state().mutex);
  if (simt::fails("cudaEventRecord")) return simt::failed(cudaErrorInvalidValue);
  if (event->device() != stream->device()) return simt::failed(cudaErrorInvalidResourceHandle);
  event->record(*stream);
  return cudaSuccess;
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
  const std::lock_guard lock(state().mutex);
  if (simt::fails("cudaEventQuery")) return simt::failed(cudaErrorLaunchFailure);
  return event->query() ? cudaSuccess : cudaErrorNotReady;
}
