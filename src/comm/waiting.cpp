#include "moefy/comm/waiting.hpp"

#include <algorithm>
#include <thread>

namespace moefy {

void Backoff::pause() { std::this_thread::sleep_for(next()); }

std::chrono::nanoseconds WatchClock::look(TimePoint now) {
  const auto gap = std::chrono::duration_cast<std::chrono::nanoseconds>(now - last_);
  watched_ += std::min<std::chrono::nanoseconds>(gap, kLongestGap);
  last_ = now;
  return watched_;
}

std::chrono::milliseconds patience(const Communicator& comm) {
  constexpr std::chrono::milliseconds kStep{700};
  constexpr int kSteps = 4;
  return comm.timeout() + kStep * std::min(comm.job_rank(comm.rank()), kSteps);
}

}  // namespace moefy
