#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "moefy/backend/backend.hpp"

namespace moefy::cpu {

/// The rows that change their site, listed by the site they leave or join.
class MovedRows {
 public:
  /// Labels by selected row; old_label may be empty (all rows join).
  void collect(MatrixView<const float> rows, RowSelection selection,
               std::span<const std::int32_t> old_label, std::span<const std::int32_t> new_label,
               std::size_t num_sites);

  /// body(pointers to the rows from column `begin`, leaving) for those that leave `site`, then for
  /// those that join it, in pieces.
  template <class Body>
  void for_each_slice(std::size_t site, std::size_t begin, const Body& body) const {
    for (const bool leaving : {true, false}) {
      const std::size_t list = 2 * site + (leaving ? 0 : 1);
      const float* piece[kPiece];
      for (std::size_t at = first_[list]; at < first_[list + 1];) {
        std::size_t count = 0;
        for (; count < kPiece && at < first_[list + 1]; ++at) piece[count++] = row_[at] + begin;
        body(std::span<const float* const>(piece, count), leaving);
      }
    }
  }
  void add_counts(std::span<std::int64_t> count) const;

 private:
  static constexpr std::size_t kPiece = 64;
  std::vector<std::size_t> first_;  // [2 num_sites + 1], leaving and joining lists of a site
  std::vector<std::size_t> next_;
  std::vector<const float*> row_;
};

}  // namespace moefy::cpu
