#include "sharded/sharded_rows.hpp"

#include <algorithm>
#include <numeric>

#include "moefy/core/error.hpp"

namespace moefy::sharded {

namespace {

MessageWriter order_of(ShardOrder kind) {
  MessageWriter order;
  order.add(kind);
  return order;
}

/// Shards of all rows such that those of `to_keep` (ascending) are dealt out evenly.
RowShards shards_for(std::size_t num_rows, std::span<const std::int32_t> to_keep,
                     std::size_t members) {
  if (to_keep.empty() || to_keep.size() == num_rows)
    return RowShards(even_shards(num_rows, members));
  std::vector<std::size_t> begin = even_shards(to_keep.size(), members);
  for (std::size_t m = 1; m < members; ++m) {
    begin[m] = begin[m] < to_keep.size() ? static_cast<std::size_t>(to_keep[begin[m]]) : num_rows;
  }
  // A member without rows to keep has none at all.
  for (std::size_t m = 1; m < members && begin[m] == static_cast<std::size_t>(to_keep[0]); ++m)
    begin[m] = 0;
  begin[members] = num_rows;
  return RowShards(std::move(begin));
}

}  // namespace

void ShardedRows::resize(std::size_t num_rows, std::size_t dim,
                         std::span<const std::int32_t> to_keep) {
  shards_ = shards_for(num_rows, to_keep, group_.size());
  dim_ = dim;
  group_.tell(group_.orders([](std::size_t) { return true; },
                            [&](std::size_t m) {
                              MessageWriter order = order_of(ShardOrder::resize_rows);
                              order.add(shards_.count(m));
                              order.add(dim);
                              return order;
                            }));
}

void ShardedRows::fill_columns(std::size_t first, std::size_t width,
                               const std::function<void(RowsTarget)>& fill) {
  filling_.emplace(first, width);
  fill({nullptr, shards_.num_rows(), width, dim_, MemorySpace::group});
  filling_.reset();
}

void ShardedRows::fill(const ShardedBackend::DescribeRows& describe) {
  require(filling_.has_value(), "rows of a group are filled within fill_columns");
  group_.tell(group_.orders([&](std::size_t m) { return has_rows(m); },
                            [&](std::size_t m) {
                              MessageWriter order = order_of(ShardOrder::fill_columns);
                              order.add(filling_->first);
                              order.add(filling_->second);
                              describe(shards_.begin(m), shards_.count(m), order);
                              return order;
                            }));
}

std::vector<double> ShardedRows::squared_norms() {
  auto answers =
      group_.ask(group_.orders([&](std::size_t m) { return has_rows(m); },
                               [](std::size_t) { return order_of(ShardOrder::squared_norms); }));
  std::vector<double> norms;
  norms.reserve(shards_.num_rows());
  for (auto& answer : answers) {
    if (!answer) continue;
    const auto part = answer->next_all<double>();
    norms.insert(norms.end(), part.begin(), part.end());
  }
  return norms;
}

void ShardedRows::keep(std::span<const std::int32_t> rows, bool unit) {
  const RowShards kept = shards_.among(rows);
  group_.tell(group_.orders([&](std::size_t m) { return has_rows(m); },
                            [&](std::size_t m) {
                              MessageWriter order = order_of(ShardOrder::keep_rows);
                              order.add_all(shards_.own_numbers(rows, kept, m));
                              order.add(unit);
                              return order;
                            }));
  shards_ = kept;
}

/// In fp64 the order of rows matters, so one member after another adds its own.
void ShardedRows::add_unit_rows(std::span<const std::int32_t> label, Matrix<double>& sum) {
  for (std::size_t member = 0; member < group_.size(); ++member) {
    if (!has_rows(member)) continue;
    auto answers = group_.ask(group_.orders([&](std::size_t m) { return m == member; },
                                            [&](std::size_t m) {
                                              MessageWriter order =
                                                  order_of(ShardOrder::add_unit_rows);
                                              order.add_all(shards_.part(label, m));
                                              order.add(sum.rows());
                                              order.add_all(std::span<const double>(sum.values()));
                                              return order;
                                            }));
    std::ranges::copy(answers[member]->next_all<double>(), sum.values().begin());
  }
}

}  // namespace moefy::sharded
