#include "group_port.hpp"

#include <algorithm>

#include "moefy/comm/waiting.hpp"

namespace moefy {
namespace {

constexpr int kOrderTag = 2;

}  // namespace

GroupPort::GroupPort(Communicator& comm, int first_peer, int end_peer)
    : comm_(comm), watch_(comm, first_peer, end_peer) {}

void GroupPort::send(int peer, std::vector<std::byte> bytes) {
  const std::lock_guard lock(mutex_);
  outgoing_.push_back({peer, std::move(bytes)});
  if (wake_) wake_();
}

std::vector<std::byte> GroupPort::receive(int peer, const std::stop_token& stop) {
  return std::move(receive_any(std::span(&peer, 1), stop, {})->bytes);
}

std::optional<GroupPort::Message> GroupPort::receive_any(
    std::span<const int> peers, const std::stop_token& stop,
    std::optional<std::chrono::microseconds> longest) {
  std::unique_lock lock(mutex_);
  auto found = peers.end();
  const auto find = [&] {
    found = std::ranges::find_if(peers, [&](int peer) { return !arrived_[peer].empty(); });
    return found != peers.end();
  };
  waiting_ = !find();
  if (waiting_) {
    waiting_since_ = Clock::now();
    if (wake_) wake_();
    if (longest) {
      arrival_.wait_for(lock, stop, *longest, find);
    } else {
      arrival_.wait(lock, stop, find);
    }
    waiting_ = false;
  }
  if (found == peers.end()) {
    if (stop.stop_requested()) throw Interrupted("stopped while ranks share a layer");
    return std::nullopt;
  }
  std::deque<std::vector<std::byte>>& arrived = arrived_[*found];
  Message message{*found, std::move(arrived.front())};
  arrived.pop_front();
  return message;
}

void GroupPort::set_wake(std::function<void()> wake) {
  const std::lock_guard lock(mutex_);
  wake_ = std::move(wake);
}

bool GroupPort::drive(const std::function<void(int peer, QueueMessage)>& hear) {
  std::deque<Message> outgoing;
  {
    const std::lock_guard lock(mutex_);
    outgoing.swap(outgoing_);
  }
  bool moved = !outgoing.empty();
  for (Message& message : outgoing) comm_.post(message.peer, kOrderTag, std::move(message.bytes));
  while (auto message = comm_.poll()) {
    moved = true;
    watch_.heard(message->source);
    if (message->tag != kOrderTag) {
      hear(message->source, decode_queue_message(*message));
      continue;
    }
    {
      const std::lock_guard lock(mutex_);
      arrived_[message->source].push_back(std::move(message->bytes));
    }
    arrival_.notify_one();
  }
  watch_.tick();
  return moved;
}

std::chrono::microseconds GroupPort::longest_pause() const {
  // Whoever waits longer than that does not notice a little more.
  constexpr std::chrono::milliseconds kLongWait{500};
  constexpr std::chrono::microseconds kShort{50};
  const std::lock_guard lock(mutex_);
  const bool briefly = waiting_ && Clock::now() - waiting_since_ < kLongWait;
  return briefly ? kShort : Backoff::kLongest;
}

}  // namespace moefy
