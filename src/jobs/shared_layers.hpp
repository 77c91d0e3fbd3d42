#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <stop_token>

#include "layer_supply.hpp"
#include "link_choice.hpp"
#include "moefy/backend/sharded_backend.hpp"
#include "moefy/schedule/layer_queue.hpp"
#include "moefy/schedule/rank_groups.hpp"

namespace moefy {

/// This rank's end of layers whose rows several ranks share: groups of consecutive ranks, of which
/// the first leads. Leaders take layers from the queue. Every member reads its own rows, or its
/// leader sends them, in file dtype.
class SharedLayers {
 public:
  using FindLayer = std::function<const LayerInfo&(std::int64_t id)>;

  /// Groups of `ranks_a_layer` ranks; the last may be smaller. Collective over `comm`. `own`, this
  /// rank's backend on `device`, and `checkpoint` (null on a rank that cannot read the files) must
  /// outlive it. `local_feed`: all ranks can.
  SharedLayers(Communicator& comm, int ranks_a_layer, const DeviceChoice& device, Backend& own,
               const Checkpoint* checkpoint, bool local_feed, FindLayer find_layer,
               std::stop_token stop);

  bool leads() const { return group_->rank() == 0; }
  /// How the sums of a group's ranks come together; known to rank 0.
  const std::string& sums_description() const { return sums_.description; }

  /// Members that do not lead: carries out the leader's orders until the queue has ended, and
  /// throws its error. All ranks are in follow() or run() together.
  void follow();

  /// Leaders: the backend of all members' rows, and the layers for it.
  Backend& backend() { return *backend_; }
  /// `payload`: of an item of the queue, or null.
  LayerSupply::OpenLayer open(const LayerInfo& layer, PayloadReader* payload);
  /// Leaders: run_queue() among them, with statistics by rank of the job.
  QueueStatistics run(std::span<const QueueItem> items, QueueCallbacks callbacks);

 private:
  /// Fills the group's rows of a role; without a local feed from its raw bytes.
  void fill_group(const LayerInfo& layer, FfnRole role, const RawSource& next);
  void fill(MessageReader& order, const RowsTarget& out);
  void handle(MessageReader& order, MessageWriter& answer) { member_->handle(order, answer); }
  /// The end of follow() and run(): throws the error, or ends what adds up sums. Collective.
  void close(const std::optional<RankError>& error);

  Communicator& comm_;
  const Checkpoint* checkpoint_;
  bool local_feed_;
  FindLayer find_layer_;
  std::stop_token stop_;
  std::unique_ptr<Communicator> group_;
  std::unique_ptr<Communicator> leaders_;
  std::unique_ptr<ShardMember> member_;
  SumLink sums_;  ///< after `member_`: ended before memory goes that it may be working on
  AlignedBuffer<std::byte> raw_;
  // Of leaders:
  std::stop_source stop_all_;
  std::unique_ptr<GroupLeader> leader_;
  std::unique_ptr<GroupOrders> orders_;
  std::unique_ptr<ShardedBackend> backend_;
};

}  // namespace moefy
