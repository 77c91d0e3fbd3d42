#include "sharded/sharded_backend.hpp"

#include <algorithm>
#include <numeric>

#include "moefy/core/error.hpp"
#include "sharded/sharded_rows.hpp"
#include "sharded/site_moves.hpp"

namespace moefy {

using sharded::add_columns;
using sharded::RowShards;
using sharded::ShardOrder;

struct GroupBackend::GroupPoints final : Points {
  explicit GroupPoints(std::shared_ptr<PointIds> ids_in)
      : ids(std::move(ids_in)), id(ids->next++) {}
  ~GroupPoints() override { ids->dropped.push_back(id); }
  std::shared_ptr<PointIds> ids;
  std::int32_t id;
  RowShards shards;
};

const GroupBackend::GroupPoints& GroupBackend::own(const Points& points) {
  return static_cast<const GroupPoints&>(points);
}

template <class Predicate, class Describe>
Orders GroupBackend::orders_if(const Predicate& takes_part, ShardOrder kind,
                               const Describe& describe) const {
  return group_.orders(takes_part, [&](std::size_t m) {
    MessageWriter order;
    order.add(kind);
    describe(m, order);
    return order;
  });
}

template <class Describe>
Orders GroupBackend::orders(ShardOrder kind, const RowShards& shards,
                            const Describe& describe) const {
  return orders_if([&](std::size_t m) { return shards.count(m) > 0; }, kind, describe);
}

// ---- rows and points ---------------------------------------------------------------------------

std::unique_ptr<RowMatrix> GroupBackend::make_rows() {
  auto rows = std::make_unique<sharded::ShardedRows>(group_);
  rows_ = rows.get();
  return rows;
}

void GroupBackend::fill_rows(const DescribeRows& describe) {
  require(rows_ != nullptr, "a group has rows");
  rows_->fill(describe);
}

std::unique_ptr<Points> GroupBackend::make_points() { return std::make_unique<GroupPoints>(ids_); }

/// Points end where no order can be sent, so the members hear of it later.
void GroupBackend::drop_points() {
  for (const std::int32_t id : std::exchange(ids_->dropped, {})) {
    group_.tell(orders_if([](std::size_t) { return true; }, ShardOrder::drop_points,
                          [&](std::size_t, MessageWriter& order) { order.add(id); }));
  }
}

void GroupBackend::load(Points& points, const RowsView& rows, bool quantize) {
  load_shifted(points, rows, {}, quantize);
}

void GroupBackend::load_shifted(Points& points, const RowsView& rows, std::span<const float> shift,
                                bool quantize) {
  require(rows_ != nullptr && rows.space == MemorySpace::group &&
              rows.rows == rows_->shards().num_rows(),
          "a group loads the rows that its members hold");
  drop_points();
  auto& target = static_cast<GroupPoints&>(points);
  target.shards = rows_->shards();
  target.rows = rows;
  auto answers =
      group_.ask(orders(ShardOrder::load, target.shards, [&](std::size_t m, MessageWriter& order) {
        require(target.shards.begin(m) % kSumBlock == 0, "shards begin at multiples of a block");
        order.add(target.id);
        order.add(quantize);
        order.add(target.shards.begin(m));
        order.add_all(shift);
      }));
  target.max_squared_norm = 0;
  target.max_abs = 0;
  target.zero_rows = 0;
  target.block_squared_norm.clear();
  for (auto& answer : answers) {
    if (!answer) continue;
    target.max_squared_norm = std::max(target.max_squared_norm, answer->next<double>());
    target.max_abs = std::max(target.max_abs, answer->next<float>());
    target.zero_rows += answer->next<std::int64_t>();
    const auto blocks = answer->next_all<double>();
    target.block_squared_norm.insert(target.block_squared_norm.end(), blocks.begin(), blocks.end());
  }
  target.sum_squared_norm =
      std::accumulate(target.block_squared_norm.begin(), target.block_squared_norm.end(), 0.0);
}

void GroupBackend::read_rows(const Points& points, std::span<const std::int32_t> rows,
                             MatrixView<float> out) {
  require(out.rows == rows.size() && out.cols == points.rows.cols, "a row of memory for each");
  // Rows may come in any order; members take theirs ascending.
  std::vector<std::size_t> place(rows.size());
  std::iota(place.begin(), place.end(), std::size_t{0});
  std::ranges::stable_sort(place, {}, [&](std::size_t a) { return rows[a]; });
  std::vector<std::int32_t> sorted;
  sorted.reserve(rows.size());
  for (const std::size_t a : place) sorted.push_back(rows[a]);

  // Piece by piece, so that the answers take little memory.
  constexpr std::size_t kPieceValues = std::size_t{1} << 22;
  const std::size_t at_once =
      std::max<std::size_t>(1, kPieceValues / std::max<std::size_t>(out.cols, 1));
  for (std::size_t first = 0; first < sorted.size(); first += at_once) {
    const std::size_t count = std::min(at_once, sorted.size() - first);
    read_ascending(points, std::span(sorted).subspan(first, count),
                   std::span(place).subspan(first, count), out);
  }
}

void GroupBackend::read_ascending(const Points& points, std::span<const std::int32_t> rows,
                                  std::span<const std::size_t> place, MatrixView<float> out) {
  const RowShards& shards = own(points).shards;
  const RowShards wanted = shards.among(rows);
  auto answers =
      group_.ask(orders(ShardOrder::read_rows, wanted, [&](std::size_t m, MessageWriter& order) {
        order.add(own(points).id);
        order.add_all(shards.own_numbers(rows, wanted, m));
      }));
  for (std::size_t m = 0; m < answers.size(); ++m) {
    if (!answers[m]) continue;
    const auto values = answers[m]->next_all<float>();
    for (std::size_t a = 0; a < wanted.count(m); ++a) {
      std::ranges::copy(values.subspan(a * out.cols, out.cols),
                        out.row(place[wanted.begin(m) + a]).begin());
    }
  }
}

void GroupBackend::copy_quantized(const Points& from, std::span<const std::int32_t> rows,
                                  Points& to) {
  auto& target = static_cast<GroupPoints&>(to);
  const RowShards& shards = own(from).shards;
  target.shards = shards.among(rows);
  target.rows = {nullptr, rows.size(), from.rows.cols, MemorySpace::group};
  group_.tell(
      orders(ShardOrder::copy_quantized, target.shards, [&](std::size_t m, MessageWriter& order) {
        order.add(own(from).id);
        order.add(target.id);
        order.add_all(shards.own_numbers(rows, target.shards, m));
      }));
}

// ---- cost matrices -----------------------------------------------------------------------------

CostView GroupBackend::cost_buffer(std::size_t slot, std::size_t num_rows, std::size_t num_sites) {
  Slot& own_slot = slots_.at(slot);
  own_slot.view.data = &own_slot.token;
  own_slot.view.num_rows = num_rows;
  own_slot.view.num_sites = num_sites;
  own_slot.view.stride = (num_sites + kSiteAlignment - 1) / kSiteAlignment * kSiteAlignment;
  own_slot.view.space = MemorySpace::group;
  own_slot.at_members = false;
  own_slot.copied = false;
  return own_slot.view;
}

GroupBackend::Slot& GroupBackend::slot_of(const CostView& q) {
  const auto slot = std::ranges::find_if(
      slots_, [&](const Slot& candidate) { return &candidate.token == q.data; });
  require(slot != slots_.end(), "the costs are in a buffer of this backend");
  return *slot;
}

std::size_t GroupBackend::written(const CostView& q) {
  const Slot& slot = slot_of(q);
  require(slot.at_members, "costs are written before they are read");
  return static_cast<std::size_t>(&slot - slots_.data());
}

std::size_t GroupBackend::write_to(const CostView& q, const RowShards& shards) {
  Slot& slot = slot_of(q);
  require(shards.num_rows() == q.num_rows, "a row of costs for each row");
  const auto number = static_cast<std::size_t>(&slot - slots_.data());
  if (!slot.at_members || slot.shards != shards) {
    require(!slot.at_members, "the rows of a cost matrix stay where they are");
    slot.shards = shards;
    slot.at_members = true;
    group_.tell(orders(ShardOrder::cost_buffer, shards, [&](std::size_t m, MessageWriter& order) {
      order.add(number);
      order.add(shards.count(m));
      order.add(q.num_sites);
    }));
  }
  slot.copied = false;
  return number;
}

CostView GroupBackend::on_host(const CostView& q) {
  Slot& slot = slot_of(q);
  if (!slot.copied) {
    const std::size_t number = written(q);
    slot.copy.resize(q.num_rows * q.stride);
    auto answers =
        group_.ask(orders(ShardOrder::on_host, slot.shards,
                          [&](std::size_t, MessageWriter& order) { order.add(number); }));
    for (std::size_t m = 0; m < answers.size(); ++m) {
      if (!answers[m]) continue;
      std::ranges::copy(answers[m]->next_all<std::int32_t>(),
                        slot.copy.data() + slot.shards.begin(m) * q.stride);
    }
    slot.copied = true;
  }
  CostView copy = q;
  copy.data = slot.copy.data();
  copy.space = MemorySpace::host;
  return copy;
}

void GroupBackend::write_costs(MatrixView<const std::int32_t> costs, const CostView& q) {
  require(costs.rows == q.num_rows && costs.cols == q.num_sites, "a cost for each row and site");
  const Slot& slot = slot_of(q);
  const RowShards shards =
      slot.at_members ? slot.shards : RowShards(even_shards(q.num_rows, group_.size()));
  const std::size_t number = write_to(q, shards);
  group_.tell(orders(ShardOrder::write_costs, shards, [&](std::size_t m, MessageWriter& order) {
    order.add(number);
    order.add_all(
        costs.values().subspan(shards.begin(m) * costs.cols, shards.count(m) * costs.cols));
  }));
}

void GroupBackend::copy_rows(const CostView& from, std::span<const std::int32_t> rows,
                             const CostView& to) {
  const std::size_t source = written(from);
  const RowShards& shards = slot_of(from).shards;
  const RowShards wanted = shards.among(rows);
  const std::size_t target = write_to(to, wanted);
  group_.tell(orders(ShardOrder::copy_rows, wanted, [&](std::size_t m, MessageWriter& order) {
    order.add(source);
    order.add(target);
    order.add_all(shards.own_numbers(rows, wanted, m));
  }));
}

void GroupBackend::costs(const Points& points, const RowsView& centroids, int scale_log2,
                         std::span<const std::int32_t> columns, const CostView& q) {
  const RowShards& shards = own(points).shards;
  const std::size_t number = write_to(q, shards);
  group_.tell(orders(ShardOrder::costs, shards, [&](std::size_t, MessageWriter& order) {
    order.add(own(points).id);
    order.add(number);
    order.add(scale_log2);
    order.add_all(columns);
    add_columns(order, centroids.on_host(), columns);
  }));
}

void GroupBackend::approximate_costs(const Points& points, RowSelection selection,
                                     const RowsView& centroids, int scale_log2, const CostView& q) {
  const RowShards& shards = own(points).shards;
  const RowShards selected = shards.selected(selection);
  const std::size_t number = write_to(q, selected);
  group_.tell(
      orders(ShardOrder::approximate_costs, selected, [&](std::size_t m, MessageWriter& order) {
        order.add(own(points).id);
        order.add(number);
        order.add(scale_log2);
        order.add(shards.own_selection(selection, m));
        order.add_all(std::span<const float>(centroids.on_host().values()));
      }));
}

void GroupBackend::changed_costs(const Points& points, const RowsView& base_centroids,
                                 const RowsView& centroids, int scale_log2,
                                 std::span<const std::int32_t> columns, bool copy_others,
                                 const CostView& base, const CostView& q) {
  const RowShards& shards = own(points).shards;
  const std::size_t source = written(base);
  require(slot_of(base).shards == shards, "base costs of the same rows");
  const std::size_t target = write_to(q, shards);
  group_.tell(orders(ShardOrder::changed_costs, shards, [&](std::size_t, MessageWriter& order) {
    order.add(own(points).id);
    order.add(source);
    order.add(target);
    order.add(scale_log2);
    order.add(copy_others);
    order.add_all(columns);
    add_columns(order, base_centroids.on_host(), columns);
    add_columns(order, centroids.on_host(), columns);
  }));
}

// ---- what is read from costs -------------------------------------------------------------------

std::int64_t GroupBackend::total_cost(const CostView& q, std::span<const std::int32_t> label) {
  require(label.size() == q.num_rows, "a label for each row of costs");
  const std::size_t number = written(q);
  const RowShards& shards = slot_of(q).shards;
  auto answers =
      group_.ask(orders(ShardOrder::total_cost, shards, [&](std::size_t m, MessageWriter& order) {
        order.add(number);
        order.add_all(shards.part(label, m));
      }));
  std::int64_t total = 0;
  for (auto& answer : answers) {
    if (answer) total += answer->next<std::int64_t>();
  }
  return total;
}

void GroupBackend::best_sites(const CostView& q, std::span<const std::int32_t> prices,
                              bool with_margins, SiteChoice& choice) {
  const std::size_t number = written(q);
  auto answers = group_.ask(
      orders(ShardOrder::best_sites, slot_of(q).shards, [&](std::size_t, MessageWriter& order) {
        order.add(number);
        order.add(with_margins);
        order.add_all(prices);
      }));
  choice.label.clear();
  choice.best.clear();
  choice.margin.clear();
  choice.count.assign(q.num_sites, 0);
  const auto append = [](std::vector<std::int32_t>& values, MessageReader& answer) {
    const auto part = answer.next_all<std::int32_t>();
    values.insert(values.end(), part.begin(), part.end());
  };
  for (auto& answer : answers) {
    if (!answer) continue;
    append(choice.label, *answer);
    append(choice.best, *answer);
    append(choice.margin, *answer);
    const auto count = answer->next_all<std::int64_t>();
    for (std::size_t j = 0; j < q.num_sites; ++j) choice.count[j] += count[j];
  }
}

void GroupBackend::smallest_moves(const CostView& q, std::span<const std::int32_t> label,
                                  std::span<std::int32_t> key, std::span<std::int32_t> row) {
  const std::size_t number = written(q);
  const RowShards& shards = slot_of(q).shards;
  auto answers = group_.ask(
      orders(ShardOrder::smallest_moves, shards, [&](std::size_t m, MessageWriter& order) {
        order.add(number);
        order.add_all(shards.part(label, m));
      }));
  std::ranges::fill(key, kNoSite);
  std::ranges::fill(row, -1);
  for (std::size_t m = 0; m < answers.size(); ++m) {
    if (!answers[m]) continue;
    const auto keys = answers[m]->next_all<std::int32_t>();
    const auto rows = answers[m]->next_all<std::int32_t>();
    const auto first = static_cast<std::int32_t>(shards.begin(m));
    for (std::size_t a = 0; a < key.size(); ++a) {
      // Members come in the order of their rows: of equal keys the first has the lowest row.
      if (keys[a] >= key[a]) continue;
      key[a] = keys[a];
      row[a] = first + rows[a];
    }
  }
}

CertificateSums GroupBackend::certificate_sums(const CostView& q,
                                               std::span<const std::int32_t> label,
                                               std::span<const std::int32_t> prices) {
  const std::size_t number = written(q);
  const RowShards& shards = slot_of(q).shards;
  auto answers = group_.ask(
      orders(ShardOrder::certificate_sums, shards, [&](std::size_t m, MessageWriter& order) {
        order.add(number);
        order.add_all(shards.part(label, m));
        order.add_all(prices);
      }));
  CertificateSums sums;
  for (std::size_t m = 0; m < answers.size(); ++m) {
    if (!answers[m]) continue;
    const auto part = answers[m]->next<CertificateSums>();
    sums.cost += part.cost;
    sums.row_minima += part.row_minima;
    sums.unconstrained += part.unconstrained;
    if (part.worst <= sums.worst) continue;
    sums.worst = part.worst;
    sums.worst_row = part.worst_row + static_cast<std::int64_t>(shards.begin(m));
  }
  return sums;
}

// ---- sums over rows ----------------------------------------------------------------------------

void GroupBackend::update_sums(const Points& points, RowSelection selection,
                               std::span<const std::int32_t> old_label,
                               std::span<const std::int32_t> new_label, SiteSums& sums) {
  const RowShards& shards = own(points).shards;
  const RowShards selected = shards.selected(selection);
  require(new_label.size() == selected.num_rows(), "a label for each selected row");
  const sharded::SiteMoves moves(old_label, new_label, sums.count);
  if (moves.sites().empty()) return;
  Answers answers = group_.ask(orders_if(
      [&](std::size_t m) { return reducer_ || selected.count(m) > 0; }, ShardOrder::update_sums,
      [&](std::size_t m, MessageWriter& order) {
        order.add(own(points).id);
        order.add(shards.own_selection(selection, m));
        order.add(moves.sites().size());
        order.add(points.rows.cols);
        order.add(sums.scale_log2);
        order.add_all(selected.part(moves.old_label(), m));
        order.add_all(selected.part(moves.new_label(), m));
      }));
  if (reducer_) answers = reduce_sums();
  Matrix<std::int64_t>& values = host_sums(sums);
  for (auto& answer : answers) {
    if (!answer) continue;
    for (const std::int32_t moved : answer->next_all<std::int32_t>()) {
      const auto added = answer->next_all<std::int64_t>();
      const std::int32_t site = moves.sites()[static_cast<std::size_t>(moved)];
      const auto sum = values.row(static_cast<std::size_t>(site));
      for (std::size_t l = 0; l < sum.size(); ++l) sum[l] += added[l];
    }
  }
}

/// By now every member has sums, and what could fail on one alone has not.
GroupBackend::Answers GroupBackend::reduce_sums() {
  const auto waits_for_its_part = [](std::size_t m, MessageWriter& order) { order.add(m > 0); };
  group_.ask_jointly(
      orders_if([](std::size_t) { return true; }, ShardOrder::reduce_sums, waits_for_its_part),
      [this] { return reducer_->done(); });
  return group_.ask(orders_if([](std::size_t m) { return m == 0; }, ShardOrder::read_sums,
                              [](std::size_t, MessageWriter&) {}));
}

std::vector<double> GroupBackend::block_inertia(const Points& points, const RowsView& centroids,
                                                std::span<const std::int32_t> label) {
  const RowShards& shards = own(points).shards;
  auto answers = group_.ask(
      orders(ShardOrder::block_inertia, shards, [&](std::size_t m, MessageWriter& order) {
        order.add(own(points).id);
        order.add(centroids.rows);
        order.add_all(std::span<const float>(centroids.on_host().values()));
        order.add_all(shards.part(label, m));
      }));
  std::vector<double> blocks;
  for (auto& answer : answers) {
    if (!answer) continue;
    const auto part = answer->next_all<double>();
    blocks.insert(blocks.end(), part.begin(), part.end());
  }
  return blocks;
}

std::unique_ptr<ShardedBackend> make_sharded_backend(Backend& own, GroupOrders& group,
                                                     SumReducer* reducer) {
  return std::make_unique<GroupBackend>(own, group, reducer);
}

}  // namespace moefy
