#include <cstring>
#include <vector>

#include "moefy/comm/bulk_link.hpp"
#include "moefy/core/matrix.hpp"

namespace moefy {
namespace {

class HostLink final : public BulkLink {
 public:
  explicit HostLink(Communicator& comm) : comm_(comm) {}

  std::string name() const override { return "host"; }
  MemorySpace space() const override { return MemorySpace::host; }
  std::span<std::byte> make_buffer(std::size_t bytes) override {
    return buffers_.emplace_back(bytes).span();
  }
  std::size_t receive_into(int source, std::span<std::byte> target) override {
    return comm_.receive_into(source, target);
  }
  std::size_t send_from(int target, std::span<const std::byte> bytes) override {
    return comm_.send_from(target, bytes);
  }
  bool done(std::size_t handle) override { return comm_.bulk_done(handle); }
  void copy_out(std::span<const std::byte> piece, std::span<std::byte> out) override {
    std::memcpy(out.data(), piece.data(), out.size());
  }
  void finalize() override {}

 private:
  Communicator& comm_;
  std::vector<AlignedBuffer<std::byte>> buffers_;
};

}  // namespace

std::unique_ptr<BulkLink> make_host_link(Communicator& comm) {
  return std::make_unique<HostLink>(comm);
}

}  // namespace moefy
