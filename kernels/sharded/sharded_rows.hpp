#pragma once

#include <optional>
#include <utility>

#include "moefy/backend/sharded_backend.hpp"
#include "sharded/row_shards.hpp"
#include "sharded/shard_order.hpp"

namespace moefy::sharded {

/// Rows that lie with the members of a group; see RowMatrix.
class ShardedRows final : public RowMatrix {
 public:
  explicit ShardedRows(GroupOrders& group) : group_(group) {}

  void resize(std::size_t num_rows, std::size_t dim,
              std::span<const std::int32_t> to_keep) override;
  RowsView view() const override { return {nullptr, shards_.num_rows(), dim_, MemorySpace::group}; }
  void fill_columns(std::size_t first, std::size_t width,
                    const std::function<void(RowsTarget)>& fill) override;
  std::vector<double> squared_norms() override;
  void keep(std::span<const std::int32_t> rows, bool unit) override;
  void add_unit_rows(std::span<const std::int32_t> label, Matrix<double>& sum) override;

  /// Within fill_columns().
  void fill(const ShardedBackend::DescribeRows& describe);
  /// Where each member's rows begin now.
  const RowShards& shards() const { return shards_; }

 private:
  bool has_rows(std::size_t member) const { return shards_.count(member) > 0; }

  GroupOrders& group_;
  RowShards shards_;
  std::size_t dim_ = 0;
  std::optional<std::pair<std::size_t, std::size_t>> filling_;  ///< first column and width
};

}  // namespace moefy::sharded
