#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <stop_token>
#include <vector>

#include "moefy/comm/bulk_link.hpp"
#include "moefy/comm/communicator.hpp"

namespace moefy {

/// One piece of work for the queue. What it is, the queue does not know.
struct QueueItem {
  std::int64_t id = 0;
  std::uint64_t weight = 1;         ///< larger ones are handed out first (ties: lower id)
  std::uint64_t payload_bytes = 0;  ///< bytes that travel if another rank than 0 does it; 0: none
};

/// The bytes of an item as they arrive from rank 0.
class PayloadReader {
 public:
  virtual ~PayloadReader() = default;
  /// Fills `out`, memory of the link's space, with the next bytes, which may have to arrive first.
  /// Throws Interrupted when the work is stopped. To be used inside `prepare`, or `work` if there
  /// is no `prepare`, by its thread.
  virtual void read(std::span<std::byte> out) = 0;
};

/// Other traffic of a rank that its communicating thread drives while a queue runs.
class QueueCompanion {
 public:
  virtual ~QueueCompanion() = default;
  /// What makes the queue call drive() soon, from any thread; empty again when the queue ends.
  virtual void set_wake(std::function<void()> wake) = 0;
  /// Moves what can be moved, in every round of the queue's loop; whether anything did.
  virtual bool drive() = 0;
  /// drive() should be called again within this time.
  virtual std::chrono::microseconds longest_pause() const = 0;
};

/// They may run at the same time, each on a thread of its own; each alone is never entered twice.
struct QueueCallbacks {
  /// Rank 0, reader thread: fills `piece` with the payload of item `id` from byte `offset` on. The
  /// pieces of one item come in order. Not called for items that rank 0 works on itself.
  std::function<void(std::int64_t id, std::uint64_t offset, std::span<std::byte> piece)> load;
  /// Any rank, second worker thread, if set: fetches what `work` will need of item `id`, while the
  /// rank works on the item before. `payload` is null on rank 0, which reads for itself, and for
  /// items without; else all of it must be read. Throws Interrupted when stopped.
  std::function<void(std::int64_t id, PayloadReader* payload, std::stop_token stop)> prepare;
  /// Any rank, worker thread: does the item and returns its result as bytes. `payload` as in
  /// `prepare`, and null if there is one. Throws Interrupted when stopped.
  std::function<std::vector<std::byte>(std::int64_t id, PayloadReader* payload,
                                       std::stop_token stop)>
      work;
  /// Rank 0, a thread of its own, as results arrive in any order: makes them durable. `rank` did
  /// the work.
  std::function<void(std::int64_t id, int rank, std::vector<std::byte> result)> commit;
  /// Any rank; may be null. Must outlive the queue.
  QueueCompanion* companion = nullptr;
};

/// Of a payload at a time on its way: long enough for the network, small beside a rank's memory.
constexpr std::size_t kPieceBytes = std::size_t{16} << 20;

struct QueueStatistics {
  std::vector<std::int64_t> items_by_rank;   ///< rank 0 only
  std::vector<double> busy_seconds_by_rank;  ///< rank 0 only
  std::uint64_t payload_bytes_sent = 0;
};

/// Positions of the items in the order in which they are handed out: heaviest first, ties by lower
/// id.
std::vector<std::size_t> heaviest_first(std::span<const QueueItem> items);

/// Hands out `items` (equal on all ranks, ids distinct), heaviest first, to whichever rank is free;
/// rank 0 works, too. A rank asks for its next item while it works on this one. Payloads travel in
/// pieces, each into a receive that was posted before it was asked for, and as soon as there is
/// room: pieces of the next item arrive while a rank works on this one. A rank holds two pieces,
/// however large the items and however many the ranks. Near the end items are kept for ranks that
/// have nothing to do. `link` carries the pieces; without one, host messages do.
///
/// Collective; returns on all ranks when all results are committed. An error anywhere stops all
/// ranks at their next safe point and is thrown on all of them (same class). A stop request on any
/// rank does the same as Interrupted; items already done are committed first, and if those are all,
/// it returns as if nothing had happened. A rank that stays silent for the time-out ends the job.
/// Communicates on the calling thread (the one that initialised MPI), works on a second one.
QueueStatistics run_queue(Communicator& comm, std::span<const QueueItem> items,
                          const QueueCallbacks& callbacks, std::stop_token stop,
                          std::size_t piece_bytes = kPieceBytes, BulkLink* link = nullptr);

}  // namespace moefy
