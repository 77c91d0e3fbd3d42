#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace moefy::cuda {

/// The rows of every label, in order, for kernels that go through them label by label.
struct RowsByLabel {
  std::vector<std::int64_t> begin;  ///< [num_labels + 1] where the rows of each begin, and the end
  std::vector<std::int32_t> rows;
};
/// Rows whose label is negative are left out. Throws std::out_of_range on other wrong labels.
RowsByLabel rows_by_label(std::span<const std::int32_t> label, std::size_t num_labels);

}  // namespace moefy::cuda
