#include "shared_layers.hpp"

#include <algorithm>
#include <utility>

#include "moefy/core/error.hpp"

namespace moefy {

SharedLayers::SharedLayers(Communicator& comm, int ranks_a_layer, const DeviceChoice& device,
                           Backend& own, const Checkpoint* checkpoint, bool local_feed,
                           FindLayer find_layer, std::stop_token stop)
    : comm_(comm),
      checkpoint_(checkpoint),
      local_feed_(local_feed),
      find_layer_(std::move(find_layer)),
      stop_(std::move(stop)),
      group_(comm.split(comm.rank() / ranks_a_layer)),
      leaders_(comm.split(group_->rank() == 0 ? 0 : 1)),
      sums_(choose_sum_link(comm, *group_, device, own)) {
  member_ = make_shard_member(
      own, [this](MessageReader& order, const RowsTarget& out) { fill(order, out); },
      sums_.reducer.get());
  if (!leads()) return;
  leader_ = std::make_unique<GroupLeader>(*group_, stop_all_);
  orders_ = std::make_unique<GroupOrders>(
      *leader_, [this](MessageReader& order, MessageWriter& answer) { handle(order, answer); });
  backend_ = make_sharded_backend(own, *orders_, sums_.reducer.get());
}

/// A member's rows [first, first + count) of a role are those of a layer of their own.
void SharedLayers::fill(MessageReader& order, const RowsTarget& out) {
  const LayerInfo& layer = find_layer_(order.next<std::int64_t>());
  const auto role = order.next<FfnRole>();
  const auto first = static_cast<std::int64_t>(order.next<std::size_t>());
  const LayerInfo part = layer.part(first, static_cast<std::int64_t>(out.rows));
  if (local_feed_) {
    LayerReader(*checkpoint_, part).read_rows(role, raw_, out);
  } else {
    widen_role(part, role, order.next_all<std::byte>(), out);
  }
}

void SharedLayers::fill_group(const LayerInfo& layer, FfnRole role, const RawSource& next) {
  const RawShape shape = raw_shape(layer, role);
  const std::size_t size = size_of(shape.dtype);
  std::vector<std::byte> whole;  // transposed: every member has a part of each row of the file
  if (!local_feed_ && shape.transposed) {
    whole.resize(role_bytes(layer, role));
    next(whole);
  }
  std::vector<std::byte> part;
  backend_->fill_rows([&](std::size_t first, std::size_t count, MessageWriter& order) {
    order.add(layer.index);
    order.add(role);
    order.add(first);
    if (local_feed_) return;
    part.resize(count * shape.dim * size);
    if (shape.transposed) {
      for (std::size_t row = 0; row < shape.dim; ++row)
        std::copy_n(whole.data() + (row * shape.num_rows + first) * size, count * size,
                    part.data() + row * count * size);
    } else {
      next(part);  // members come in the order of their rows
    }
    order.add_all(part);
  });
}

void SharedLayers::follow() {
  const OrderHandler handler = [this](MessageReader& order, MessageWriter& answer) {
    handle(order, answer);
  };
  std::stop_source ended;
  if (sums_.reducer) sums_.reducer->stop_with(ended.get_token());
  close(serve_group(*group_, handler, stop_, ended));
}

void SharedLayers::close(const std::optional<RankError>& error) {
  if (error) {
    // Aborts what is under way, for which freeing memory of the device would wait.
    sums_.reducer.reset();
    throw_error(error->code, error->message);
  }
  together(comm_, [this] {
    if (sums_.reducer) sums_.reducer->finalize();
  });
}

LayerSupply::OpenLayer SharedLayers::open(const LayerInfo& layer, PayloadReader* payload) {
  const auto source = [this, &layer, payload](FfnRole role, const RowsTarget& out) {
    require(out.space == MemorySpace::group, "shared rows are filled by the group");
    std::uint64_t offset = 0;
    fill_group(layer, role, [&](std::span<std::byte> raw) {
      if (payload) return payload->read(raw);
      read_role_part(*checkpoint_, layer, role, offset, raw);
      offset += raw.size();
    });
  };
  const auto fingerprint = [this, &layer, payload]() -> std::optional<Digest> {
    if (payload) return std::nullopt;
    return layer_fingerprint(*checkpoint_, layer);
  };
  return {source, fingerprint};
}

QueueStatistics SharedLayers::run(std::span<const QueueItem> items, QueueCallbacks callbacks) {
  const std::stop_callback forward(stop_, [this] { stop_all_.request_stop(); });
  callbacks.companion = leader_.get();
  callbacks.work = [this, work = std::move(callbacks.work)](std::int64_t id, PayloadReader* payload,
                                                            std::stop_token stop) {
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
  close(error);
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
