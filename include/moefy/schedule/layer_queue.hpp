#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <stop_token>
#include <vector>

#include "moefy/comm/communicator.hpp"

namespace moefy {

/// One piece of work for the queue. What it is, the queue does not know.
struct QueueItem {
  std::int64_t id = 0;
  std::uint64_t weight = 1;         ///< larger ones are handed out first (ties: lower id)
  std::uint64_t payload_bytes = 0;  ///< bytes that travel if the coordinator feeds; 0: none
};

struct QueueCallbacks {
  /// Rank 0, communication thread or its reader: fills `payload` of item `id`. Only called if
  /// payload_bytes > 0 — also for items that rank 0 works on itself.
  std::function<void(std::int64_t id, std::span<std::byte> payload)> load;
  /// Any rank, worker thread: does the item and returns its result as bytes. Throws
  /// Interrupted when stopped.
  std::function<std::vector<std::byte>(std::int64_t id, std::span<const std::byte> payload,
                                       std::stop_token stop)>
      work;
  /// Rank 0, as results arrive in any order: makes them durable. `rank` did the work.
  std::function<void(std::int64_t id, int rank, std::vector<std::byte> result)> commit;
};

struct QueueStatistics {
  std::vector<std::int64_t> items_by_rank;   ///< rank 0 only
  std::vector<double> busy_seconds_by_rank;  ///< rank 0 only
  std::uint64_t payload_bytes_sent = 0;
};

/// Hands out `items` (equal on all ranks), heaviest first, to whichever rank is free; rank 0
/// works, too. A rank posts the receive for its next item into a prefetch buffer before it asks, so
/// that the transfer of the next layer overlaps with work on this one. Collective; returns on all
/// ranks when all results are committed. An error anywhere stops all ranks at their next safe point
/// and is thrown on all of them (same class). A stop request on any rank does the same as
/// Interrupted; items already done are committed first. Communicates on the calling thread (the one
/// that initialised MPI), works on a second one.
QueueStatistics run_queue(Communicator& comm, std::span<const QueueItem> items,
                          const QueueCallbacks& callbacks, std::stop_token stop);

}  // namespace moefy
