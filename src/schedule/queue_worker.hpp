#pragma once

#include <array>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>

#include "local_worker.hpp"
#include "moefy/schedule/layer_queue.hpp"
#include "payload_window.hpp"
#include "peer_watch.hpp"
#include "queue_messages.hpp"

namespace moefy {

/// The part of a queue that runs on every rank but 0: asks, fetches, works, reports.
class QueueWorker {
 public:
  /// `buffers` have the size of a piece, or none.
  QueueWorker(Communicator& comm, BulkLink& link, std::span<const QueueItem> items,
              const QueueCallbacks& callbacks, const PieceBuffers& buffers, std::stop_token stop);

  /// Returns when rank 0 has ended the queue, with the error if there was one.
  std::optional<RankError> run();

 private:
  enum class SlotState { empty, asked, ready, working };
  struct Slot {
    SlotState state = SlotState::empty;
    std::int64_t id = -1;
    std::uint64_t payload_bytes = 0;
    std::uint64_t fetched = 0;  ///< bytes that were asked for
    std::uint64_t turn = 0;     ///< items are started and fetched in the order of assignment
    std::unique_ptr<WindowReader> reader = nullptr;  ///< of an item in work
  };
  /// A piece that was asked for, and what has come of it.
  struct Fetch {
    std::int64_t id = -1;
    std::size_t size = 0;
    std::optional<std::size_t> receive;
    bool answered = false;
  };

  void ask();
  bool handle_messages();
  void handle(const QueueMessage& message);
  void fetch();
  bool finish_fetch();
  Slot* unfetched();
  bool report_outcome();
  void notice_stop();
  void start_work();
  void tell_drained();
  void stop_working();
  Slot* find(SlotState state);

  Communicator& comm_;
  BulkLink& link_;
  QueueCompanion* companion_;
  std::map<std::int64_t, std::uint64_t> payload_bytes_;
  std::stop_token stop_;
  std::array<Slot, 2> slots_;
  std::uint64_t next_turn_ = 0;
  std::optional<Fetch> fetch_;
  bool no_more_ = false;
  bool stopping_ = false;
  bool wished_ = false;
  bool drained_ = false;
  bool ended_ = false;
  std::optional<RankError> error_;
  Doorbell doorbell_;
  PayloadWindow window_;
  PeerWatch watch_;
  LocalWorker worker_;
};

}  // namespace moefy
