#include "cpu/moved_rows.hpp"

#include <algorithm>

namespace moefy::cpu {
namespace {

/// visit(list, selected row) for both lists of every row that moves.
template <class Visit>
void for_each_move(std::span<const std::int32_t> old_label, std::span<const std::int32_t> new_label,
                   const Visit& visit) {
  for (std::size_t a = 0; a < new_label.size(); ++a) {
    const std::int32_t before = old_label.empty() ? -1 : old_label[a];
    const std::int32_t now = new_label[a];
    if (before == now) continue;
    if (before >= 0) visit(2 * static_cast<std::size_t>(before), a);
    visit(2 * static_cast<std::size_t>(now) + 1, a);
  }
}

}  // namespace

void MovedRows::collect(MatrixView<const float> rows, RowSelection selection,
                        std::span<const std::int32_t> old_label,
                        std::span<const std::int32_t> new_label, std::size_t num_sites) {
  first_.assign(2 * num_sites + 1, 0);
  for_each_move(old_label, new_label, [&](std::size_t list, std::size_t) { ++first_[list + 1]; });
  for (std::size_t list = 0; list < 2 * num_sites; ++list) first_[list + 1] += first_[list];
  row_.resize(first_.back());
  next_.assign(first_.begin(), first_.end() - 1);
  for_each_move(old_label, new_label, [&](std::size_t list, std::size_t a) {
    row_[next_[list]++] = rows.data + selection.global(a) * rows.cols;
  });
}

void MovedRows::add_counts(std::span<std::int64_t> count) const {
  for (std::size_t j = 0; j < count.size(); ++j) {
    count[j] += static_cast<std::int64_t>(first_[2 * j + 2] - first_[2 * j + 1]) -
                static_cast<std::int64_t>(first_[2 * j + 1] - first_[2 * j]);
  }
}

}  // namespace moefy::cpu
