#include "sharded/shard_order.hpp"

#include <algorithm>

namespace moefy::sharded {

void add_columns(MessageWriter& writer, MatrixView<const float> matrix,
                 std::span<const std::int32_t> columns) {
  for (const std::int32_t j : columns) {
    writer.add_all(std::span<const float>(matrix.row(static_cast<std::size_t>(j))));
  }
}

void next_columns(MessageReader& reader, std::span<const std::int32_t> columns,
                  Matrix<float>& matrix) {
  for (const std::int32_t j : columns) {
    const auto from = reader.next_all<float>();
    std::ranges::copy(from, matrix.row(static_cast<std::size_t>(j)).begin());
  }
}

}  // namespace moefy::sharded
