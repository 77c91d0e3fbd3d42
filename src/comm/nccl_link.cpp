#include <fmt/format.h>

#include <chrono>
#include <deque>
#include <map>
#include <optional>
#include <utility>

#include "moefy/backend/backend.hpp"
#include "moefy/backend/device_transfers.hpp"
#include "moefy/comm/bulk_link.hpp"
#include "moefy/comm/device_reducer.hpp"
#include "moefy/comm/waiting.hpp"
#include "nccl_communicator.hpp"

namespace moefy {
namespace {

class NcclLink final : public BulkLink {
 public:
  NcclLink(Communicator& comm, Backend& backend)
      : comm_(comm),
        transfers_(backend.make_transfers()),
        copies_(backend.make_transfers()),
        nccl_(comm, *transfers_) {}

  /// Collective.
  void join() { nccl_.join(); }

  std::string name() const override { return nccl_.name(); }
  MemorySpace space() const override { return MemorySpace::device; }

  std::span<std::byte> make_buffer(std::size_t bytes) override {
    const std::span<std::byte> device = transfers_->allocate(bytes);
    if (comm_.rank() > 0) return device;
    const std::span<std::byte> host = transfers_->allocate_pinned(bytes);
    on_device_[host.data()] = device;
    return host;
  }

  std::size_t receive_into(int source, std::span<std::byte> target) override {
    return add({false, source, target, {}, {}, WatchClock(Clock::now())});
  }
  std::size_t send_from(int target, std::span<const std::byte> bytes) override {
    const std::span<std::byte> device = on_device_.at(bytes.data());
    return add({true, target, device.first(bytes.size()), bytes, {}, WatchClock(Clock::now())});
  }

  bool done(std::size_t handle) override {
    drive();
    const auto found = under_way_.find(handle);
    require(found != under_way_.end(), "the transfer is under way");
    Transfer& transfer = found->second;
    if (transfer.mark && transfers_->passed(*transfer.mark)) {
      under_way_.erase(found);
      return true;
    }
    if (transfer.watch.look(Clock::now()) > patience_with(transfer)) {
      nccl_.throw_silent(describe(transfer));
    }
    return false;
  }

  void copy_out(std::span<const std::byte> piece, std::span<std::byte> out) override {
    copies_->copy(piece.first(out.size()), out.data());
    copies_->wait();
  }

  void finalize() override {
    require(under_way_.empty(), "nothing is under way at the end");
    nccl_.finalize();
  }

 private:
  using Clock = std::chrono::steady_clock;
  struct Transfer {
    bool sending = false;
    int peer = -1;
    std::span<std::byte> device;
    std::span<const std::byte> host;  ///< of a send: where the bytes come from
    std::optional<std::size_t> mark;  ///< behind it on the device; not there until NCCL queued it
    WatchClock watch;
  };

  std::size_t add(Transfer transfer) {
    for (const auto& [handle, other] : under_way_) {
      require(other.peer != transfer.peer || other.sending != transfer.sending,
              "one bulk transfer a peer and direction");
    }
    const std::size_t handle = next_handle_++;
    under_way_.emplace(handle, transfer);
    to_start_.push_back(handle);
    drive();
    return handle;
  }

  /// NCCL takes one call at a time, and what a call queued is known to be on the stream only when
  /// NCCL says so. Nothing is asked of the device after a call that starts a receive: it could wait
  /// for the bytes, and nobody would send them, as the sender has not been told yet.
  void drive() {
    transfers_->enter();
    if (!nccl_.idle("moving layers")) return;
    if (starting_) under_way_.at(*starting_).mark = transfers_->mark();
    starting_.reset();
    if (to_start_.empty()) return;
    starting_ = to_start_.front();
    to_start_.pop_front();
    start(under_way_.at(*starting_));
  }

  void start(const Transfer& transfer) {
    const std::size_t size = transfer.device.size();
    std::byte* const data = transfer.device.data();
    if (transfer.sending) {
      transfers_->upload(transfer.host, data);
      nccl_.check(nccl_.library().send(data, size, nccl::kBytes, transfer.peer, nccl_.handle(),
                                       transfers_->stream()),
                  describe(transfer));
    } else {
      nccl_.check(nccl_.library().recv(data, size, nccl::kBytes, transfer.peer, nccl_.handle(),
                                       transfers_->stream()),
                  describe(transfer));
    }
  }

  /// What is received may be held up by a third rank, on which its sender reports in time.
  std::chrono::milliseconds patience_with(const Transfer& transfer) const {
    return (transfer.sending ? 1 : 2) * patience(comm_);
  }

  static std::string describe(const Transfer& transfer) {
    return transfer.sending ? fmt::format("sending to rank {}", transfer.peer)
                            : fmt::format("receiving from rank {}", transfer.peer);
  }

  Communicator& comm_;
  std::unique_ptr<DeviceTransfers> transfers_;  ///< NCCL's; of the thread that communicates
  std::unique_ptr<DeviceTransfers> copies_;     ///< of the thread that works
  std::map<const std::byte*, std::span<std::byte>> on_device_;  ///< by rank 0's host buffers
  std::map<std::size_t, Transfer> under_way_;
  std::deque<std::size_t> to_start_;
  std::optional<std::size_t> starting_;  ///< NCCL works on its call
  std::size_t next_handle_ = 0;
  NcclCommunicator nccl_;  ///< last: it is aborted before its stream goes
};

}  // namespace

std::unique_ptr<BulkLink> make_nccl_link(Communicator& comm, Backend& backend,
                                         std::string& why_not) {
  why_not = nccl_obstacle(comm);
  if (!why_not.empty()) return nullptr;
  std::unique_ptr<NcclLink> link;
  together(comm, [&] { link = std::make_unique<NcclLink>(comm, backend); });
  link->join();
  return link;
}

}  // namespace moefy
