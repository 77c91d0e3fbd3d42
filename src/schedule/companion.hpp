#pragma once

#include <algorithm>

#include "moefy/comm/waiting.hpp"
#include "moefy/schedule/layer_queue.hpp"
#include "task_thread.hpp"

namespace moefy {

/// As long as it lives, a companion (or null) rings this doorbell.
class CompanionBell {
 public:
  CompanionBell(QueueCompanion* companion, Doorbell& doorbell) : companion_(companion) {
    if (companion_) companion_->set_wake([&doorbell] { doorbell.ring(); });
  }
  ~CompanionBell() {
    if (companion_) companion_->set_wake({});
  }
  CompanionBell(const CompanionBell&) = delete;
  CompanionBell& operator=(const CompanionBell&) = delete;

 private:
  QueueCompanion* companion_;
};

/// Drives a companion, if there is one; whether anything moved.
inline bool drive(QueueCompanion* companion) { return companion && companion->drive(); }

/// The next pause of a queue's loop with a companion or null, `longest` at most.
inline std::chrono::microseconds next_pause(Backoff& backoff, const QueueCompanion* companion,
                                            std::chrono::microseconds longest) {
  const std::chrono::microseconds pause = backoff.next(longest);
  return companion ? std::min(pause, companion->longest_pause()) : pause;
}

}  // namespace moefy
