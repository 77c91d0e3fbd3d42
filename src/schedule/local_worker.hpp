#pragma once

#include <chrono>
#include <exception>
#include <optional>
#include <span>
#include <stop_token>
#include <vector>

#include "moefy/comm/communicator.hpp"
#include "moefy/schedule/layer_queue.hpp"
#include "task_thread.hpp"

namespace moefy {

/// What became of an item: a result, or an error.
struct WorkOutcome {
  std::int64_t id = -1;
  std::vector<std::byte> result;
  std::optional<RankError> error;
  double seconds = 0;
};

/// Class and message of an exception, as other ranks are told.
RankError error_of(const Communicator& comm, const std::exception_ptr& exception);

/// The threads of a rank that do items: one works on an item while the other prepares the next, if
/// that is asked for.
class LocalWorker {
 public:
  LocalWorker(const Communicator& comm, const QueueCallbacks& callbacks, Doorbell& doorbell);
  /// Tells running work to stop and waits for it.
  ~LocalWorker() { request_stop(); }
  LocalWorker(const LocalWorker&) = delete;
  LocalWorker& operator=(const LocalWorker&) = delete;

  /// Needs has_room(). `payload`, or null, must live until take_outcome() gave this item's.
  void start(std::int64_t id, PayloadReader* payload);
  /// Whether an item may be started: the first, or the one after that in work.
  bool has_room() const;
  /// An item was started whose outcome was not taken.
  bool busy() const { return preparing_ || prepared_ || working_; }
  /// How long this rank may sleep between two looks for messages. Every look takes CPU time from
  /// the work, and while there is some, an answer is late only if it takes a good part of an item.
  std::chrono::microseconds longest_pause() const;
  /// Of an item that has ended; moves the others on. To be called until there is none whenever the
  /// doorbell has rung.
  std::optional<WorkOutcome> take_outcome();
  /// Tells the running and all later work to stop.
  void request_stop() { stop_.request_stop(); }
  std::stop_token stop_token() const { return stop_.get_token(); }

 private:
  void work(std::int64_t id, PayloadReader* payload);
  std::optional<WorkOutcome> finish_work();
  /// An outcome only if it failed.
  std::optional<WorkOutcome> finish_preparation();

  const Communicator& comm_;
  const QueueCallbacks& callbacks_;
  std::stop_source stop_;
  std::optional<std::int64_t> preparing_;
  std::optional<std::int64_t> prepared_;
  std::optional<std::int64_t> working_;
  WorkOutcome current_;          ///< of the item in work
  double shortest_seconds_ = 0;  ///< of the items done so far; 0: none
  // Last: their threads end before what they use.
  std::optional<TaskThread> preparer_;
  TaskThread worker_;
};

}  // namespace moefy
