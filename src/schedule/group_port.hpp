#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <span>
#include <stop_token>
#include <utility>
#include <vector>

#include "moefy/comm/communicator.hpp"
#include "peer_watch.hpp"
#include "queue_messages.hpp"

namespace moefy {

/// Messages between the working thread of this rank and those of its peers, carried by the thread
/// that communicates; beside them signs of life, and words between the communicating threads.
class GroupPort {
 public:
  using Clock = std::chrono::steady_clock;

  GroupPort(Communicator& comm, int first_peer, int end_peer);

  struct Message {
    int peer = 0;
    std::vector<std::byte> bytes;
  };

  // The working thread:
  void send(int peer, std::vector<std::byte> bytes);
  /// Waits for it; Interrupted if stopped meanwhile.
  std::vector<std::byte> receive(int peer, const std::stop_token& stop);
  /// The next message of any of `peers`, or nothing if none comes within `longest` (unless it is
  /// empty); Interrupted if stopped meanwhile.
  std::optional<Message> receive_any(std::span<const int> peers, const std::stop_token& stop,
                                     std::optional<std::chrono::microseconds> longest);

  // The communicating thread:
  void set_wake(std::function<void()> wake);
  /// Sends and receives what there is; `hear` gets the words of communicating threads. Whether
  /// anything moved.
  bool drive(const std::function<void(int peer, QueueMessage)>& hear);
  /// Short while the working thread waits for a message, so that it comes at once.
  std::chrono::microseconds longest_pause() const;
  /// The peer has said its last word.
  void forget(int peer) { watch_.forget(peer); }
  /// This rank will say nothing more that the peers have to hear.
  void stop_beats() { watch_.stop_beats(); }

 private:
  Communicator& comm_;
  PeerWatch watch_;
  mutable std::mutex mutex_;
  std::condition_variable_any arrival_;
  std::deque<Message> outgoing_;
  std::map<int, std::deque<std::vector<std::byte>>> arrived_;
  bool waiting_ = false;
  Clock::time_point waiting_since_;
  std::function<void()> wake_;
};

}  // namespace moefy
