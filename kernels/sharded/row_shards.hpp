#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "moefy/backend/backend.hpp"

namespace moefy::sharded {

/// Consecutive rows, dealt out to the members of a group in order.
class RowShards {
 public:
  RowShards() = default;
  /// `begin` [members + 1]: where each member's rows begin, and the end.
  explicit RowShards(std::vector<std::size_t> begin) : begin_(std::move(begin)) {}

  std::size_t num_rows() const { return begin_.empty() ? 0 : begin_.back(); }
  std::size_t begin(std::size_t member) const { return begin_[member]; }
  std::size_t count(std::size_t member) const { return begin_[member + 1] - begin_[member]; }
  bool operator==(const RowShards&) const = default;

  /// A member's part of values by row; of none, none.
  template <class T>
  std::span<T> part(std::span<T> values, std::size_t member) const {
    return values.empty() ? values : values.subspan(begin(member), count(member));
  }
  /// Which of `rows` (ascending) each member has: shards of positions in `rows`.
  RowShards among(std::span<const std::int32_t> rows) const;
  /// Row numbers of a member's part of `rows`, of which `shards` is among(rows), as it counts them.
  std::vector<std::int32_t> own_numbers(std::span<const std::int32_t> rows, const RowShards& shards,
                                        std::size_t member) const;
  /// `selection` of all rows as a member has to make it among its own. Shards begin at multiples of
  /// kSampleBlock.
  RowSelection own_selection(RowSelection selection, std::size_t member) const;
  /// The selected rows of each member.
  RowShards selected(RowSelection selection) const;

 private:
  std::vector<std::size_t> begin_;
};

}  // namespace moefy::sharded
