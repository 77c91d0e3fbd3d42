#include "moefy/schedule/layer_queue.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <new>
#include <numeric>
#include <set>

#include "moefy/core/hash.hpp"
#include "queue_coordinator.hpp"
#include "queue_worker.hpp"

namespace moefy {
namespace {

void check_items(std::span<const QueueItem> items) {
  std::set<std::int64_t> ids;
  for (const QueueItem& item : items) {
    require(item.id >= 0, "ids of queue items are not negative");
    require(ids.insert(item.id).second, "ids of queue items are distinct");
  }
}

Digest digest_of(std::span<const QueueItem> items) {
  Hasher hasher;
  for (const QueueItem& item : items) {
    hasher.add_number(static_cast<std::uint64_t>(item.id));
    hasher.add_number(item.weight);
    hasher.add_number(item.payload_bytes);
  }
  return hasher.digest();
}

PieceBuffers make_buffers(BulkLink& link, std::span<const QueueItem> items,
                          std::size_t piece_bytes) {
  std::uint64_t largest = 0;
  for (const QueueItem& item : items) largest = std::max(largest, item.payload_bytes);
  largest = std::min<std::uint64_t>(largest, piece_bytes);
  try {
    return {link.make_buffer(largest), link.make_buffer(largest)};
  } catch (const std::bad_alloc&) {
    throw UsageError(
        fmt::format("not enough memory for two layer buffers of {} bytes a rank; use "
                    "fewer ranks on this host",
                    largest));
  }
}

/// What can go wrong before the first item does so on all ranks together. Collective.
PieceBuffers prepare(Communicator& comm, BulkLink& link, std::span<const QueueItem> items,
                     std::size_t piece_bytes) {
  PieceBuffers buffers;
  const Digest mine = digest_of(items);
  std::vector<std::byte> rank0(sizeof mine);
  std::memcpy(rank0.data(), &mine, sizeof mine);
  comm.broadcast(rank0);
  together(comm, [&] {
    require(std::memcmp(rank0.data(), &mine, sizeof mine) == 0,
            "queue items are equal on all ranks");
    check_items(items);
    require(piece_bytes > 0, "a piece has bytes");
    if (comm.size() > 1) buffers = make_buffers(link, items, piece_bytes);
  });
  return buffers;
}

/// `side` lives outside, because its destructor waits for running work; the abort must not.
template <class Side>
void run_side(Communicator& comm, Side& side) {
  std::optional<RankError> error;
  try {
    error = side.run();
  } catch (const std::exception& failure) {
    // The queue or the link is broken, and the other ranks are in the middle of it.
    if (comm.size() == 1) throw;
    if (const auto* known = dynamic_cast<const Error*>(&failure)) {
      comm.abort(known->code(), failure.what());
    }
    comm.abort(ExitCode::internal, failure.what());
  }
  if (error) throw_error(error->code, error->message);
}

}  // namespace

std::vector<std::size_t> heaviest_first(std::span<const QueueItem> items) {
  std::vector<std::size_t> order(items.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    if (items[a].weight != items[b].weight) return items[a].weight > items[b].weight;
    return items[a].id < items[b].id;
  });
  return order;
}

QueueStatistics run_queue(Communicator& comm, std::span<const QueueItem> items,
                          const QueueCallbacks& callbacks, std::stop_token stop,
                          std::size_t piece_bytes, BulkLink* given_link) {
  const std::unique_ptr<BulkLink> host_link = given_link ? nullptr : make_host_link(comm);
  BulkLink& link = given_link ? *given_link : *host_link;
  const PieceBuffers buffers = prepare(comm, link, items, piece_bytes);

  if (comm.rank() > 0) {
    QueueWorker worker(comm, link, items, callbacks, buffers, std::move(stop));
    run_side(comm, worker);
    return {};
  }
  QueueCoordinator coordinator(comm, link, items, callbacks, buffers, std::move(stop));
  run_side(comm, coordinator);
  return coordinator.statistics();
}

}  // namespace moefy
