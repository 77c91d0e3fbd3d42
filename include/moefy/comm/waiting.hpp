#pragma once

#include <algorithm>
#include <chrono>

#include "moefy/comm/communicator.hpp"

namespace moefy {

/// How long to sleep between two looks at something that may have happened: microseconds at first,
/// so that short waits stay short, then doubling to a millisecond, so that long ones cost no CPU.
class Backoff {
 public:
  static constexpr std::chrono::microseconds kShortest{8};
  static constexpr std::chrono::microseconds kLongest{1024};

  void reset() { pause_ = kShortest; }
  /// The next pause; each call doubles it, up to `longest`.
  std::chrono::microseconds next(std::chrono::microseconds longest = kLongest) {
    const auto pause = std::min(pause_, longest);
    if (pause_ < longest) pause_ *= 2;
    return pause;
  }
  /// Sleeps for next().
  void pause();

 private:
  std::chrono::microseconds pause_ = kShortest;
};

/// A clock that counts the time spent watching: a gap between two looks counts as one second at
/// most. A process that was stopped or busy itself does not take its own absence for a peer's
/// silence.
class WatchClock {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;
  static constexpr std::chrono::seconds kLongestGap{1};

  /// `start` is the time of the first look.
  explicit WatchClock(TimePoint start) : last_(start) {}
  /// Time watched up to `now`, which is the time of this look.
  std::chrono::nanoseconds look(TimePoint now);

 private:
  TimePoint last_;
  std::chrono::nanoseconds watched_{0};
};

/// How long this rank waits for a silent peer: the time-out, and a little more on higher ranks, so
/// that of several waiting ranks only the lowest reports.
std::chrono::milliseconds patience(const Communicator& comm);

}  // namespace moefy
