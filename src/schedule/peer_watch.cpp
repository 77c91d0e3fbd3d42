#include "peer_watch.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "queue_messages.hpp"

namespace moefy {
namespace {

/// Several beats fit into the time-out, so that a late one does no harm.
std::chrono::nanoseconds beat_interval(std::chrono::milliseconds timeout) {
  constexpr std::chrono::milliseconds kLongest{10'000};
  return std::min(timeout / 6, kLongest);
}

}  // namespace

PeerWatch::PeerWatch(Communicator& comm, int first_peer, int end_peer)
    : comm_(comm),
      clock_(std::chrono::steady_clock::now()),
      interval_(beat_interval(comm.timeout())) {
  for (int peer = first_peer; peer < end_peer; ++peer) heard_at_[peer] = now_;
}

void PeerWatch::heard(int peer) {
  const auto found = heard_at_.find(peer);
  if (found != heard_at_.end()) found->second = now_;
}

void PeerWatch::tick() {
  if (heard_at_.empty()) return;
  now_ = clock_.look(std::chrono::steady_clock::now());
  if (beating_ && now_ >= next_beat_) {
    next_beat_ = now_ + interval_;
    for (const auto& [peer, when] : heard_at_) post(comm_, peer, {});
  }
  const auto limit = patience(comm_);
  for (const auto& [peer, when] : heard_at_) {
    if (now_ - when <= limit) continue;
    comm_.abort(
        ExitCode::comm,
        fmt::format("rank {} has given no sign of life for {} s (--timeout). It hangs, is "
                    "stopped or cannot be reached; finished work is in the journal, the "
                    "same command resumes",
                    comm_.job_rank(peer), static_cast<double>(comm_.timeout().count()) / 1000));
  }
}

}  // namespace moefy
