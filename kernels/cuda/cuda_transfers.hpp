#pragma once

#include <map>
#include <vector>

#include "cuda/runtime.hpp"
#include "moefy/backend/device_transfers.hpp"

namespace moefy::cuda {

class CudaTransfers final : public DeviceTransfers {
 public:
  explicit CudaTransfers(int device) : device_(device) {}
  ~CudaTransfers() override;

  std::span<std::byte> allocate(std::size_t bytes) override;
  std::span<std::byte> allocate_pinned(std::size_t bytes) override;
  void enter() override;
  void upload(std::span<const std::byte> from, std::byte* to) override;
  void copy(std::span<const std::byte> from, std::byte* to) override;
  void* stream() override { return stream_.handle(); }
  std::size_t mark() override;
  bool passed(std::size_t mark) override;
  void wait() override;

 private:
  using DeviceMemory = Buffer<std::byte, allocate_device_apart, free_device>;

  int device_;
  std::vector<std::unique_ptr<DeviceMemory>> device_memory_;
  std::vector<std::unique_ptr<PinnedBuffer<std::byte>>> pinned_memory_;
  std::map<std::size_t, cudaEvent_t> marks_;
  std::vector<cudaEvent_t> unused_;
  std::size_t next_mark_ = 0;
  Stream stream_{Stream::Use::transfers};  ///< last: its copies end before their memory goes
};

}  // namespace moefy::cuda
