#include "moefy/backend/backend.hpp"

#include <algorithm>

namespace moefy {

std::size_t RowSelection::count(std::size_t num_rows) const {
  const std::size_t blocks = (num_rows + kSampleBlock - 1) / kSampleBlock;
  if (blocks == 0) return 0;
  const std::size_t selected = (blocks + step - 1) / step;
  const std::size_t last_begin = (selected - 1) * step * kSampleBlock;
  return (selected - 1) * kSampleBlock + std::min(kSampleBlock, num_rows - last_begin);
}

}  // namespace moefy
