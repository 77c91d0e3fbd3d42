#pragma once

#include <array>
#include <map>
#include <optional>
#include <span>
#include <stop_token>

#include "local_worker.hpp"
#include "moefy/core/matrix.hpp"
#include "moefy/schedule/layer_queue.hpp"
#include "peer_watch.hpp"
#include "queue_messages.hpp"

namespace moefy {

/// The part of a queue that runs on every rank but 0: asks, works, reports.
class QueueWorker {
 public:
  using Buffers = std::array<AlignedBuffer<std::byte>, 2>;

  /// `buffers` have the size of the largest payload, or none.
  QueueWorker(Communicator& comm, std::span<const QueueItem> items, const QueueCallbacks& callbacks,
              Buffers& buffers, std::stop_token stop);

  /// Returns when rank 0 has ended the queue, with the error if there was one.
  std::optional<RankError> run();

 private:
  enum class SlotState { empty, asked, ready, working };
  struct Slot {
    std::span<std::byte> buffer;
    SlotState state = SlotState::empty;
    std::int64_t id = -1;
  };
  /// A request that was sent and what has come of its answer.
  struct Request {
    Slot* slot = nullptr;
    std::optional<std::size_t> receive;
    bool answered = false;
  };

  void ask();
  bool handle_messages();
  void handle(const QueueMessage& message);
  bool finish_request();
  bool report_outcome();
  void notice_stop();
  void start_work();
  void tell_drained();
  void stop_working();
  Slot* find(SlotState state);

  Communicator& comm_;
  std::map<std::int64_t, std::uint64_t> payload_bytes_;
  bool with_payloads_;
  std::stop_token stop_;
  std::array<Slot, 2> slots_;
  std::optional<Request> request_;
  bool no_more_ = false;
  bool stopping_ = false;
  bool wished_ = false;
  bool drained_ = false;
  bool ended_ = false;
  std::optional<RankError> error_;
  Doorbell doorbell_;
  PeerWatch watch_;
  LocalWorker worker_;
};

}  // namespace moefy
