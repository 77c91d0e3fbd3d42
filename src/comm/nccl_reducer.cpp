#include <chrono>
#include <optional>
#include <utility>

#include "moefy/comm/device_reducer.hpp"
#include "moefy/comm/waiting.hpp"
#include "nccl_communicator.hpp"

namespace moefy {
namespace {

constexpr const char* kWhat = "adding up sums";

class NcclReducer final : public DeviceReducer {
 public:
  NcclReducer(Communicator& comm, Backend& backend)
      : comm_(comm), transfers_(backend.make_transfers()), nccl_(comm, *transfers_) {}

  /// Collective.
  void join() { nccl_.join(); }

  std::string name() const override { return nccl_.name(); }
  void stop_with(std::stop_token stop) override { stop_ = std::move(stop); }

  void begin(std::span<std::int64_t> values) override {
    require(!watch_, "one reduction at a time");
    transfers_->enter();
    nccl_.check(nccl_.library().reduce(values.data(), values.data(), values.size(), nccl::kInt64,
                                       nccl::kSum, 0, nccl_.handle(), transfers_->stream()),
                kWhat);
    watch_.emplace(Clock::now());
  }

  bool done() override {
    require(watch_.has_value(), "a reduction is under way");
    transfers_->enter();
    // What the call queued is on the stream only when NCCL says so.
    if (nccl_.idle(kWhat)) {
      if (!mark_) mark_ = transfers_->mark();
      if (transfers_->passed(*mark_)) {
        mark_.reset();
        watch_.reset();
        return true;
      }
    }
    // Twice the time-out: a rank that is silent altogether is reported by those who hear it.
    if (watch_->look(Clock::now()) > 2 * patience(comm_)) nccl_.throw_silent(kWhat);
    return false;
  }

  void wait() override {
    Backoff backoff;
    while (!done()) {
      if (stop_.stop_requested()) throw Interrupted("stopped while ranks add up their sums");
      backoff.pause();
    }
  }

  void finalize() override { nccl_.finalize(); }

 private:
  using Clock = std::chrono::steady_clock;

  Communicator& comm_;
  std::stop_token stop_;
  std::unique_ptr<DeviceTransfers> transfers_;
  std::optional<WatchClock> watch_;  ///< of the reduction that is under way
  std::optional<std::size_t> mark_;  ///< behind it on the device
  NcclCommunicator nccl_;            ///< last: it is aborted before its stream goes
};

}  // namespace

std::unique_ptr<DeviceReducer> make_nccl_reducer(Communicator& comm, Backend& backend) {
  std::unique_ptr<NcclReducer> reducer;
  together(comm, [&] { reducer = std::make_unique<NcclReducer>(comm, backend); });
  reducer->join();
  return reducer;
}

}  // namespace moefy
