#include "shared_layers.hpp"

#include <utility>

#include "moefy/core/error.hpp"

namespace moefy {

SharedLayers::SharedLayers(Communicator& comm, int ranks_a_layer, Backend& own,
                           const Checkpoint& checkpoint, FindLayer find_layer, std::stop_token stop)
    : comm_(comm),
      checkpoint_(checkpoint),
      find_layer_(std::move(find_layer)),
      stop_(std::move(stop)),
      group_(comm.split(comm.rank() / ranks_a_layer)),
      leaders_(comm.split(group_->rank() == 0 ? 0 : 1)),
      member_(make_shard_member(
          own, [this](MessageReader& order, const RowsTarget& out) { fill(order, out); })) {
  if (!leads()) return;
  leader_ = std::make_unique<GroupLeader>(*group_, stop_all_);
  orders_ = std::make_unique<GroupOrders>(
      *leader_, [this](MessageReader& order, MessageWriter& answer) { handle(order, answer); });
  backend_ = make_sharded_backend(own, *orders_);
}

/// A member reads its rows [first, first + count) of a role as if they were a layer of their own.
void SharedLayers::fill(MessageReader& order, const RowsTarget& out) {
  const LayerInfo& layer = find_layer_(order.next<std::int64_t>());
  const auto role = order.next<FfnRole>();
  const auto first = static_cast<std::int64_t>(order.next<std::size_t>());
  const LayerInfo part = layer.part(first, static_cast<std::int64_t>(out.rows));
  LayerReader(checkpoint_, part).read_rows(role, raw_, out);
}

void SharedLayers::follow() {
  const OrderHandler handler = [this](MessageReader& order, MessageWriter& answer) {
    handle(order, answer);
  };
  if (const auto error = serve_group(*group_, handler, stop_))
    throw_error(error->code, error->message);
}

LayerSupply::OpenLayer SharedLayers::open(const LayerInfo& layer) {
  return {[this, &layer](FfnRole role, const RowsTarget& out) {
            require(out.space == MemorySpace::group, "shared rows are filled by the group");
            backend_->fill_rows([&](std::size_t first, std::size_t, MessageWriter& order) {
              order.add(layer.index);
              order.add(role);
              order.add(first);
            });
          },
          [this, &layer] { return layer_fingerprint(checkpoint_, layer); }};
}

QueueStatistics SharedLayers::run(std::span<const QueueItem> items, QueueCallbacks callbacks) {
  const std::stop_callback forward(stop_, [this] { stop_all_.request_stop(); });
  callbacks.companion = leader_.get();
  callbacks.work = [this, work = std::move(callbacks.work)](
                       std::int64_t id, PayloadReader* payload, std::stop_token stop) {
    leader_->stop_with(stop);
    return work(id, payload, stop);
  };
  QueueStatistics by_leader;
  std::optional<RankError> error;
  try {
    by_leader = run_queue(*leaders_, items, callbacks, stop_all_.get_token());
  } catch (const Error& failure) {
    error = RankError{failure.code(), failure.what(), leaders_->job_rank(0)};
  }
  leader_->finish(error);
  if (error) throw_error(error->code, error->message);
  if (leaders_->rank() > 0) return by_leader;

  QueueStatistics by_rank = by_leader;
  const auto num_ranks = static_cast<std::size_t>(comm_.size());
  by_rank.items_by_rank.assign(num_ranks, 0);
  by_rank.busy_seconds_by_rank.assign(num_ranks, 0);
  for (int leader = 0; leader < leaders_->size(); ++leader) {
    const auto from = static_cast<std::size_t>(leader);
    const auto to = static_cast<std::size_t>(leaders_->job_rank(leader));
    by_rank.items_by_rank[to] = by_leader.items_by_rank[from];
    by_rank.busy_seconds_by_rank[to] = by_leader.busy_seconds_by_rank[from];
  }
  return by_rank;
}

}  // namespace moefy
