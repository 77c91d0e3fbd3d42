#pragma once

#include <array>
#include <deque>
#include <map>
#include <optional>
#include <span>
#include <stop_token>
#include <vector>

#include "local_worker.hpp"
#include "moefy/schedule/layer_queue.hpp"
#include "payload_window.hpp"
#include "peer_watch.hpp"
#include "queue_messages.hpp"

namespace moefy {

/// The part of a queue that runs on rank 0: hands out, sends what ranks fetch, works too, commits.
///
/// A piece of a payload is loaded once its receive is posted, so that no buffer waits for a
/// particular rank; while one is sent, the next is loaded.
class QueueCoordinator {
 public:
  /// `buffers` have the size of a piece, or none.
  QueueCoordinator(Communicator& comm, BulkLink& link, std::span<const QueueItem> items,
                   const QueueCallbacks& callbacks, const PieceBuffers& buffers,
                   std::stop_token stop);

  /// Returns when all ranks have said good-bye, with the error if there was one.
  std::optional<RankError> run();
  const QueueStatistics& statistics() const { return statistics_; }

 private:
  enum class SlotState { free, loading, sending };
  struct Slot {
    std::span<std::byte> buffer;
    SlotState state = SlotState::free;
  };
  struct Peer {
    std::int64_t in_hand = 0;
    std::optional<std::size_t> sending;  ///< the bulk on its way to it
    Slot* sending_from = nullptr;
    bool drained = false;
    bool gone = false;
  };
  /// A piece that a rank asked for.
  struct Fetch {
    int rank = 0;
    std::int64_t id = 0;
    std::uint64_t offset = 0;
  };
  struct Loading {
    int rank = 0;
    std::span<std::byte> piece;
    Slot* slot = nullptr;
  };
  struct Finished {
    std::int64_t id = 0;
    int rank = 0;
    double seconds = 0;
    std::vector<std::byte> result;
  };

  bool handle_messages();
  void handle(int source, QueueMessage message);
  bool finish_sends();
  bool finish_load();
  bool finish_own_work();
  void notice_stop();
  bool load_next();
  bool dispatch();
  std::optional<int> choose_rank();
  void send_piece(int rank, std::span<const std::byte> piece, Slot& slot);
  void refuse_requests();
  bool commit_next();
  std::chrono::microseconds longest_pause() const;
  void record_error(RankError error);
  void begin_stop();
  void say_end();
  std::size_t items_left() const;
  bool nothing_under_way() const;
  bool all_gone() const;
  Slot* find(SlotState state);

  Communicator& comm_;
  BulkLink& link_;
  std::span<const QueueItem> items_;
  const QueueCallbacks& callbacks_;
  std::map<std::int64_t, std::uint64_t> payload_bytes_;
  bool any_payload_ = false;
  std::stop_token stop_;
  std::vector<std::size_t> order_;
  std::size_t next_ = 0;  ///< in order_
  std::array<Slot, 2> slots_;
  std::deque<Fetch> fetches_;  ///< not yet loading; one a rank at the most
  std::optional<Loading> loading_;
  std::vector<Peer> peers_;        ///< by rank; 0 is not used
  std::deque<int> waiting_;        ///< ranks that asked and were not answered
  std::deque<Finished> finished_;  ///< not yet being committed
  Finished committing_;
  std::size_t committed_ = 0;
  bool stopping_ = false;
  bool ended_ = false;
  std::optional<RankError> error_;
  QueueStatistics statistics_;
  Doorbell doorbell_;
  PeerWatch watch_;
  LocalWorker worker_;
  TaskThread reader_;
  TaskThread committer_;
};

}  // namespace moefy
