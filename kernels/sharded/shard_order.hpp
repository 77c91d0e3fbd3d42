#pragma once

#include <cstdint>
#include <span>

#include "moefy/core/matrix.hpp"
#include "moefy/core/message.hpp"

namespace moefy::sharded {

/// What a leader orders of a member's part: the primitives of Backend and RowMatrix.
enum class ShardOrder : std::uint8_t {
  resize_rows,
  fill_columns,
  squared_norms,
  keep_rows,
  add_unit_rows,
  load,
  drop_points,
  copy_quantized,
  read_rows,
  cost_buffer,
  write_costs,
  copy_rows,
  on_host,
  costs,
  approximate_costs,
  changed_costs,
  best_sites,
  smallest_moves,
  certificate_sums,
  total_cost,
  update_sums,
  reduce_sums,
  read_sums,
  block_inertia,
};

/// The rows of `matrix` that `columns` (ascending) name: all that travels of centroids of which a
/// primitive looks at some.
void add_columns(MessageWriter& writer, MatrixView<const float> matrix,
                 std::span<const std::int32_t> columns);
/// Puts them back in their places of `matrix`; other rows stay as they are.
void next_columns(MessageReader& reader, std::span<const std::int32_t> columns,
                  Matrix<float>& matrix);

}  // namespace moefy::sharded
