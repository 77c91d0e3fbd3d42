#include "cuda/cuda_transfers.hpp"

#include "moefy/core/error.hpp"

namespace moefy::cuda {

CudaTransfers::~CudaTransfers() {
  for (const auto& [mark, event] : marks_) cudaEventDestroy(event);
  for (cudaEvent_t event : unused_) cudaEventDestroy(event);
}

void CudaTransfers::enter() { check(cudaSetDevice(device_), "choosing the device"); }

std::span<std::byte> CudaTransfers::allocate(std::size_t bytes) {
  enter();
  DeviceMemory& memory = *device_memory_.emplace_back(std::make_unique<DeviceMemory>());
  memory.resize(bytes);
  return memory.span();
}

std::span<std::byte> CudaTransfers::allocate_pinned(std::size_t bytes) {
  enter();
  PinnedBuffer<std::byte>& memory =
      *pinned_memory_.emplace_back(std::make_unique<PinnedBuffer<std::byte>>());
  memory.resize(bytes);
  return memory.span();
}

void CudaTransfers::upload(std::span<const std::byte> from, std::byte* to) {
  enter();
  stream_.upload_pinned(from, to);
}

void CudaTransfers::copy(std::span<const std::byte> from, std::byte* to) {
  enter();
  stream_.copy_on_device(from.data(), to, from.size());
}

std::size_t CudaTransfers::mark() {
  enter();
  cudaEvent_t event = nullptr;
  if (unused_.empty()) {
    check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "making an event");
  } else {
    event = unused_.back();
    unused_.pop_back();
  }
  marks_[next_mark_] = event;
  check(cudaEventRecord(event, stream_.handle()), "recording an event");
  return next_mark_++;
}

bool CudaTransfers::passed(std::size_t mark) {
  enter();
  const auto found = marks_.find(mark);
  require(found != marks_.end(), "the mark was made and not passed yet");
  const cudaError_t state = cudaEventQuery(found->second);
  if (state == cudaErrorNotReady) return false;
  check(state, "moving data");
  unused_.push_back(found->second);
  marks_.erase(found);
  return true;
}

void CudaTransfers::wait() {
  enter();
  stream_.wait();
}

}  // namespace moefy::cuda
