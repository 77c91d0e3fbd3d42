#include <fmt/format.h>

#include <chrono>
#include <cstring>
#include <deque>
#include <map>
#include <optional>
#include <utility>

#include "moefy/backend/backend.hpp"
#include "moefy/backend/device_transfers.hpp"
#include "moefy/comm/bulk_link.hpp"
#include "moefy/comm/waiting.hpp"
#include "nccl_library.hpp"

namespace moefy {
namespace {

class NcclLink final : public BulkLink {
 public:
  NcclLink(Communicator& comm, Backend& backend, const nccl::Library& library)
      : comm_(comm),
        library_(library),
        transfers_(backend.make_transfers()),
        copies_(backend.make_transfers()) {}

  /// A link that was not finalized is broken, or its job is: nobody waits for anybody any more.
  ~NcclLink() override {
    if (nccl_ != nullptr) library_.comm_abort(nccl_);
  }

  /// Joins the communicator of `id`. Collective.
  void join(const nccl::UniqueId& id) {
    nccl::Config config;
    call_together("joining the other ranks", [&] {
      return library_.comm_init_rank_config(&nccl_, comm_.size(), id, comm_.rank(), &config);
    });
  }

  std::string name() const override { return "NCCL " + nccl::version(library_); }
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
      throw_silent(describe(transfer));
    }
    return false;
  }

  void copy_out(std::span<const std::byte> piece, std::span<std::byte> out) override {
    copies_->copy(piece.first(out.size()), out.data());
    copies_->wait();
  }

  void finalize() override {
    require(under_way_.empty(), "nothing is under way at the end");
    call_together("taking leave", [this] { return library_.comm_finalize(nccl_); });
    together(comm_, [this] {
      check(library_.comm_destroy(std::exchange(nccl_, nullptr)), "closing the link");
    });
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
    if (!idle()) return;
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
      check(library_.send(data, size, nccl::kBytes, transfer.peer, nccl_, transfers_->stream()),
            describe(transfer));
    } else {
      check(library_.recv(data, size, nccl::kBytes, transfer.peer, nccl_, transfers_->stream()),
            describe(transfer));
    }
  }

  /// Whether NCCL can take a call. Throws what has gone wrong meanwhile, also on the other side.
  bool idle() {
    nccl::Result state = nccl::success;
    check(library_.comm_get_async_error(nccl_, &state), "asking for errors");
    check(state, "moving layers");
    return state == nccl::success;
  }

  /// Makes `call` on every rank and waits until it has taken effect on all of them. They look
  /// together, so that a rank on which it fails leaves nobody waiting. Collective.
  template <class Call>
  void call_together(const std::string& action, const Call& call) {
    together(comm_, [&] {
      transfers_->enter();
      check(call(), action);
    });
    Backoff backoff;
    WatchClock watch(Clock::now());
    for (;;) {
      bool done_here = false;
      together(comm_, [&] {
        done_here = idle();
        if (!done_here && watch.look(Clock::now()) > patience(comm_)) throw_silent(action);
      });
      if (first_trouble(comm_, done_here ? "" : "busy").empty()) return;
      backoff.pause();
    }
  }

  void check(nccl::Result result, const std::string& action) {
    if (result == nccl::success || result == nccl::in_progress) return;
    const char* const detail = library_.get_last_error(nccl_);
    const std::string message = fmt::format(
        "NCCL, {}: {}{}{}", action, library_.get_error_string(result),
        detail == nullptr || *detail == '\0' ? "" : ": ", detail == nullptr ? "" : detail);
    if (result == nccl::unhandled_cuda_error) throw DeviceError(message);
    throw CommError(message);
  }

  [[noreturn]] void throw_silent(const std::string& action) const {
    throw CommError(
        fmt::format("NCCL, {}: no answer within {} s (--timeout). A rank hangs or cannot "
                    "be reached; finished work is in the journal",
                    action, static_cast<double>(comm_.timeout().count()) / 1000));
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
  const nccl::Library& library_;
  std::unique_ptr<DeviceTransfers> transfers_;  ///< NCCL's; of the thread that communicates
  std::unique_ptr<DeviceTransfers> copies_;     ///< of the thread that works
  std::map<const std::byte*, std::span<std::byte>> on_device_;  ///< by rank 0's host buffers
  std::map<std::size_t, Transfer> under_way_;
  std::deque<std::size_t> to_start_;
  std::optional<std::size_t> starting_;  ///< NCCL works on its call
  std::size_t next_handle_ = 0;
  nccl::Comm nccl_ = nullptr;
};

std::string trouble_with_nccl() {
  try {
    nccl::load();
    return {};
  } catch (const CommError& error) {
    return error.what();
  }
}

}  // namespace

std::unique_ptr<BulkLink> make_nccl_link(Communicator& comm, Backend& backend,
                                         std::string& why_not) {
  why_not = first_trouble(comm, trouble_with_nccl());
  if (!why_not.empty()) return nullptr;
  const nccl::Library& library = nccl::load();
  std::unique_ptr<NcclLink> link;
  std::vector<std::byte> bytes(sizeof(nccl::UniqueId));
  nccl::UniqueId id{};
  together(comm, [&] {
    link = std::make_unique<NcclLink>(comm, backend, library);
    if (comm.rank() > 0) return;
    const nccl::Result result = library.get_unique_id(&id);
    if (result != nccl::success) {
      throw CommError(fmt::format("NCCL, beginning: {}", library.get_error_string(result)));
    }
    std::memcpy(bytes.data(), &id, sizeof id);
  });
  comm.broadcast(bytes);
  std::memcpy(&id, bytes.data(), sizeof id);
  link->join(id);
  return link;
}

}  // namespace moefy
