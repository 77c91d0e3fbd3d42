#pragma once

#include <chrono>
#include <map>
#include <string>

#include "moefy/comm/communicator.hpp"
#include "moefy/comm/waiting.hpp"

namespace moefy {

/// Signs of life between this rank and its peers while a queue runs. Work takes minutes and sends
/// nothing, so silence alone would not mean a lost peer.
class PeerWatch {
 public:
  PeerWatch(Communicator& comm, int first_peer, int end_peer);

  void heard(int peer);
  /// The peer has said its last word.
  void forget(int peer) { heard_at_.erase(peer); }
  /// From now on only listens: the peers do not expect anything more.
  void stop_beats() { beating_ = false; }
  /// Sends what is due and ends the job (exit 5) if a peer has been silent for the time-out. To be
  /// called in every round of a polling loop.
  void tick();

 private:
  Communicator& comm_;
  WatchClock clock_;
  std::chrono::nanoseconds now_{0};
  std::chrono::nanoseconds next_beat_{0};
  std::chrono::nanoseconds interval_;
  bool beating_ = true;
  std::map<int, std::chrono::nanoseconds> heard_at_;
};

}  // namespace moefy
