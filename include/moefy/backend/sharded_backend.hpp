#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <vector>

#include "moefy/backend/backend.hpp"
#include "moefy/backend/sum_reducer.hpp"
#include "moefy/core/rank_group.hpp"

namespace moefy {

/// Where the part of each of `num_shards` members begins, and the end [num_shards + 1]: even shares
/// of whole blocks of kSumBlock rows, some empty if there are fewer blocks than members.
std::vector<std::size_t> even_shards(std::size_t num_rows, std::size_t num_shards);

/// One member's part of the rows and costs, on a backend of its own: carries out what a
/// ShardedBackend orders.
class ShardMember {
 public:
  /// Puts values into `out`, which is some rows and columns of a matrix; `order` goes on with what
  /// the leader wrote about them (see ShardedBackend::fill_rows).
  using Fill = std::function<void(MessageReader& order, const RowsTarget& out)>;

  virtual ~ShardMember() = default;
  /// See OrderHandler.
  virtual void handle(MessageReader& order, MessageWriter& answer) = 0;
};
/// `backend` must outlive it; rows lie in host memory. `reducer`: this member's end of what adds up
/// the group's sums where the backends compute; must outlive it, too. Null: they go to the leader
/// as messages.
std::unique_ptr<ShardMember> make_shard_member(Backend& backend, ShardMember::Fill fill,
                                               SumReducer* reducer = nullptr);

/// A Backend whose rows and costs lie with the members of a group, the leader among them: each
/// carries out every primitive on its rows, and labels, sums and counts come back. What is above it
/// runs on the leader alone, and every result has the bits that one member alone would give
/// (method: docs/architecture.md, "One layer over several ranks"). Rows are those of make_rows().
class ShardedBackend : public Backend {
 public:
  /// Writes what a member needs to know to fill its rows [first, first + count).
  using DescribeRows =
      std::function<void(std::size_t first, std::size_t count, MessageWriter& order)>;

  /// Within RowMatrix::fill_columns() of this backend's rows: makes the members fill their parts.
  virtual void fill_rows(const DescribeRows& describe) = 0;
};
/// `own` computes what needs no rows, on the leader. `reducer`: the leader's, if all members have
/// one. All must outlive it.
std::unique_ptr<ShardedBackend> make_sharded_backend(Backend& own, GroupOrders& group,
                                                     SumReducer* reducer = nullptr);

}  // namespace moefy
