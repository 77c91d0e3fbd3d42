#include "sharded/row_shards.hpp"

#include <algorithm>

#include "moefy/backend/sharded_backend.hpp"
#include "moefy/core/error.hpp"

namespace moefy {

std::vector<std::size_t> even_shards(std::size_t num_rows, std::size_t num_shards) {
  const std::size_t blocks = (num_rows + kSumBlock - 1) / kSumBlock;
  std::vector<std::size_t> begin(num_shards + 1);
  for (std::size_t m = 0; m <= num_shards; ++m) {
    begin[m] = std::min(m * blocks / num_shards * kSumBlock, num_rows);
  }
  return begin;
}

namespace sharded {

RowShards RowShards::among(std::span<const std::int32_t> rows) const {
  require(std::ranges::is_sorted(rows), "rows of a group ascend");
  std::vector<std::size_t> begin(begin_.size());
  for (std::size_t m = 0; m < begin_.size(); ++m) {
    const auto first = std::ranges::lower_bound(rows, static_cast<std::int32_t>(begin_[m]));
    begin[m] = static_cast<std::size_t>(first - rows.begin());
  }
  return RowShards(std::move(begin));
}

std::vector<std::int32_t> RowShards::own_numbers(std::span<const std::int32_t> rows,
                                                 const RowShards& shards,
                                                 std::size_t member) const {
  const auto part = shards.part(rows, member);
  std::vector<std::int32_t> numbers(part.begin(), part.end());
  for (std::int32_t& row : numbers) row -= static_cast<std::int32_t>(begin_[member]);
  return numbers;
}

RowSelection RowShards::own_selection(RowSelection selection, std::size_t member) const {
  const std::size_t block = begin_[member] / kSampleBlock;
  const std::size_t step = selection.step;
  if (block <= selection.first) return {step, selection.first - block};
  const std::size_t passed = (block - selection.first) % step;
  return {step, passed == 0 ? 0 : step - passed};
}

RowShards RowShards::selected(RowSelection selection) const {
  std::vector<std::size_t> begin(begin_.size(), 0);
  for (std::size_t m = 0; m + 1 < begin_.size(); ++m) {
    begin[m + 1] = begin[m] + own_selection(selection, m).count(count(m));
  }
  return RowShards(std::move(begin));
}

}  // namespace sharded
}  // namespace moefy
