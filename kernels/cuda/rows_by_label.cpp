#include "cuda/rows_by_label.hpp"

#include <numeric>

namespace moefy::cuda {

RowsByLabel rows_by_label(std::span<const std::int32_t> label, std::size_t num_labels) {
  RowsByLabel lists;
  lists.begin.assign(num_labels + 1, 0);
  for (const std::int32_t j : label) {
    if (j >= 0) ++lists.begin.at(static_cast<std::size_t>(j) + 1);
  }
  std::partial_sum(lists.begin.begin(), lists.begin.end(), lists.begin.begin());
  lists.rows.resize(static_cast<std::size_t>(lists.begin.back()));
  std::vector<std::int64_t> next(lists.begin.begin(), lists.begin.end() - 1);
  for (std::size_t i = 0; i < label.size(); ++i) {
    if (label[i] < 0) continue;
    const auto at = next[static_cast<std::size_t>(label[i])]++;
    lists.rows[static_cast<std::size_t>(at)] = static_cast<std::int32_t>(i);
  }
  return lists;
}

}  // namespace moefy::cuda
