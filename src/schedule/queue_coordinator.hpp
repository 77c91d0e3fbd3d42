#pragma once

#include <array>
#include <deque>
#include <optional>
#include <span>
#include <stop_token>
#include <vector>

#include "local_worker.hpp"
#include "moefy/core/matrix.hpp"
#include "moefy/schedule/layer_queue.hpp"
#include "peer_watch.hpp"
#include "queue_messages.hpp"

namespace moefy {

/// The part of a queue that runs on rank 0: loads ahead, hands out, works too, commits.
///
/// One item at a time is staged: loaded, but not yet promised to anybody. It goes to whoever is
/// free first, so that a payload buffer never waits for a particular rank.
class QueueCoordinator {
 public:
  using Buffers = std::array<AlignedBuffer<std::byte>, 2>;

  /// `buffers` have the size of the largest payload, or none.
  QueueCoordinator(Communicator& comm, std::span<const QueueItem> items,
                   const QueueCallbacks& callbacks, Buffers& buffers, std::stop_token stop);

  /// Returns when all ranks have said good-bye, with the error if there was one.
  std::optional<RankError> run();
  const QueueStatistics& statistics() const { return statistics_; }

 private:
  enum class SlotState { free, loading, staged, sending, working };
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
  struct Staged {
    const QueueItem* item = nullptr;
    Slot* slot = nullptr;  ///< null: the item has no payload
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
  bool stage();
  bool dispatch();
  std::optional<int> choose_rank();
  void assign(int rank, const Staged& staged);
  void work_here(const Staged& staged);
  void send_payload(int rank, std::span<const std::byte> payload, Slot* slot);
  void refuse_requests();
  bool commit_next();
  void record_error(RankError error);
  void begin_stop();
  void say_end();
  std::size_t items_left() const;
  bool nothing_under_way() const;
  bool all_gone() const;
  Slot* find(SlotState state);

  Communicator& comm_;
  std::span<const QueueItem> items_;
  const QueueCallbacks& callbacks_;
  bool with_payloads_;
  std::stop_token stop_;
  std::vector<std::size_t> order_;
  std::size_t next_ = 0;  ///< in order_
  std::array<Slot, 2> slots_;
  std::optional<Staged> loading_;
  std::optional<Staged> staged_;
  Slot* working_slot_ = nullptr;
  std::vector<Peer> peers_;        ///< by rank; 0 is not used
  std::deque<int> waiting_;        ///< ranks that asked and were not answered
  std::deque<Finished> finished_;  ///< not yet committed
  std::size_t committed_ = 0;
  bool stopping_ = false;
  bool ended_ = false;
  std::optional<RankError> error_;
  QueueStatistics statistics_;
  Doorbell doorbell_;
  PeerWatch watch_;
  LocalWorker worker_;
  TaskThread reader_;
};

}  // namespace moefy
