#pragma once

#include <array>
#include <memory>
#include <vector>

#include "moefy/backend/sharded_backend.hpp"
#include "sharded/row_shards.hpp"
#include "sharded/shard_order.hpp"

namespace moefy {

namespace sharded {
class ShardedRows;
}

/// See ShardedBackend. Every primitive is an order to each member that has rows of the points or
/// costs; what comes back is put one after another, or summed in integers.
class GroupBackend final : public ShardedBackend {
 public:
  GroupBackend(Backend& own, GroupOrders& group, SumReducer* reducer)
      : own_(own), group_(group), reducer_(reducer) {}

  std::string name() const override { return own_.name(); }
  ThreadPool& threads() override { return own_.threads(); }
  InstructionSet instruction_set() const override { return own_.instruction_set(); }
  std::optional<int> device() const override { return own_.device(); }

  std::unique_ptr<RowMatrix> make_rows() override;
  void fill_rows(const DescribeRows& describe) override;

  CostView cost_buffer(std::size_t slot, std::size_t num_rows, std::size_t num_sites) override;
  CostView on_host(const CostView& q) override;
  void write_costs(MatrixView<const std::int32_t> costs, const CostView& q) override;
  void copy_rows(const CostView& from, std::span<const std::int32_t> rows,
                 const CostView& to) override;

  std::unique_ptr<Points> make_points() override;
  void load(Points& points, const RowsView& rows, bool quantize) override;
  void load_shifted(Points& points, const RowsView& rows, std::span<const float> shift,
                    bool quantize) override;
  void read_rows(const Points& points, std::span<const std::int32_t> rows,
                 MatrixView<float> out) override;
  void copy_quantized(const Points& from, std::span<const std::int32_t> rows, Points& to) override;

  void costs(const Points& points, const RowsView& centroids, int scale_log2,
             std::span<const std::int32_t> columns, const CostView& q) override;
  void approximate_costs(const Points& points, RowSelection selection, const RowsView& centroids,
                         int scale_log2, const CostView& q) override;
  void changed_costs(const Points& points, const RowsView& base_centroids,
                     const RowsView& centroids, int scale_log2,
                     std::span<const std::int32_t> columns, bool copy_others, const CostView& base,
                     const CostView& q) override;

  std::int64_t total_cost(const CostView& q, std::span<const std::int32_t> label) override;
  void best_sites(const CostView& q, std::span<const std::int32_t> prices, bool with_margins,
                  SiteChoice& choice) override;
  void smallest_moves(const CostView& q, std::span<const std::int32_t> label,
                      std::span<std::int32_t> key, std::span<std::int32_t> row) override;
  CertificateSums certificate_sums(const CostView& q, std::span<const std::int32_t> label,
                                   std::span<const std::int32_t> prices) override;

  void update_sums(const Points& points, RowSelection selection,
                   std::span<const std::int32_t> old_label, std::span<const std::int32_t> new_label,
                   SiteSums& sums) override;
  std::vector<double> block_inertia(const Points& points, const RowsView& centroids,
                                    std::span<const std::int32_t> label) override;
  /// Tokens are not shared: the leader's own.
  LinearAlgebra& algebra() override { return own_.algebra(); }
  void multiply_transposed(MatrixView<const float> a, MatrixView<const float> b,
                           MatrixView<float> out) override {
    own_.multiply_transposed(a, b, out);
  }

 private:
  using Answers = std::vector<std::optional<MessageReader>>;

  /// A cost matrix; its CostView::data is only the address of `token`.
  struct Slot {
    std::int32_t token = 0;
    CostView view;
    sharded::RowShards shards;  ///< known when it is first written
    bool at_members = false;
    AlignedBuffer<std::int32_t> copy;
    bool copied = false;  ///< `copy` holds what the members do
  };
  /// Numbers of points, which members know them by.
  struct PointIds {
    std::int32_t next = 0;
    std::vector<std::int32_t> dropped;  ///< of which members still have the memory
  };
  struct GroupPoints;

  static const GroupPoints& own(const Points& points);
  Slot& slot_of(const CostView& q);
  /// A slot that has been written, as a number.
  std::size_t written(const CostView& q);
  /// The same for one that now is: its rows lie as `shards` say.
  std::size_t write_to(const CostView& q, const sharded::RowShards& shards);
  void drop_points();
  /// Row rows[a] (ascending) of the points becomes row place[a] of `out`.
  void read_ascending(const Points& points, std::span<const std::int32_t> rows,
                      std::span<const std::size_t> place, MatrixView<float> out);

  /// Orders of `kind` to the members that take part; describe(member, order) goes on.
  template <class Predicate, class Describe>
  Orders orders_if(const Predicate& takes_part, sharded::ShardOrder kind,
                   const Describe& describe) const;
  /// The same to the members with rows in `shards`.
  template <class Describe>
  Orders orders(sharded::ShardOrder kind, const sharded::RowShards& shards,
                const Describe& describe) const;
  /// The members' sums become the leader's, as it answers them.
  Answers reduce_sums();

  Backend& own_;
  GroupOrders& group_;
  SumReducer* reducer_;
  std::array<Slot, 4> slots_;
  std::shared_ptr<PointIds> ids_ = std::make_shared<PointIds>();
  sharded::ShardedRows* rows_ = nullptr;  ///< of make_rows()
};

}  // namespace moefy
