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

/// The second thread of a rank: works on one item at a time.
class LocalWorker {
 public:
  LocalWorker(const Communicator& comm, const QueueCallbacks& callbacks, Doorbell& doorbell)
      : comm_(comm), callbacks_(callbacks), thread_(doorbell) {}
  /// Tells running work to stop and waits for it.
  ~LocalWorker() { request_stop(); }
  LocalWorker(const LocalWorker&) = delete;
  LocalWorker& operator=(const LocalWorker&) = delete;

  /// `payload`, or null, must live until take_outcome() gave this item's.
  void start(std::int64_t id, PayloadReader* payload);
  bool busy() const { return thread_.busy(); }
  /// How long this rank may sleep between two looks for messages. Every look takes CPU time from
  /// the work, and while there is some, an answer is late only if it takes a good part of an item.
  std::chrono::microseconds longest_pause() const;
  std::optional<WorkOutcome> take_outcome();
  /// Tells the running and all later work to stop.
  void request_stop() { stop_.request_stop(); }
  std::stop_token stop_token() const { return stop_.get_token(); }

 private:
  const Communicator& comm_;
  const QueueCallbacks& callbacks_;
  std::stop_source stop_;
  WorkOutcome current_;
  double shortest_seconds_ = 0;  ///< of the items done so far; 0: none
  TaskThread thread_;            ///< last: its thread ends before what it uses
};

}  // namespace moefy
