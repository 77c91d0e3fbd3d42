#pragma once

#include <cstddef>
#include <cstdint>

#include "moefy/backend/instruction_set.hpp"

namespace moefy::cpu {

/// A block of rows of a cost matrix; rows are 64-byte aligned and padded to `stride`.
struct CostRows {
  const std::int32_t* costs;  ///< of the first row
  std::size_t num_rows;
  std::size_t num_sites;
  std::size_t stride;
};

/// Sums over a block of rows; worst_row counts from the block's first row.
struct RowCertificate {
  std::int64_t cost;
  std::int64_t row_minima;
  std::int64_t unconstrained;
  std::int64_t worst;
  std::int64_t worst_row;
};

/// The loops over rows for one instruction set. Plain pointers, because every set compiles its own
/// copy of whatever is inlined here.
struct AssignmentRows {
  /// prices [stride], 64-byte aligned, padding kNoSite. best and margin may be null.
  void (*best_sites)(const CostRows& rows, const std::int32_t* prices, std::int32_t* label,
                     std::int32_t* best, std::int32_t* margin);
  /// Lowers key and row [num_sites, stride] to the least moves of these rows, whose ids begin with
  /// first_row; rows come in ascending order. Padding columns get any values.
  void (*smallest_moves)(const CostRows& rows, const std::int32_t* label, std::int32_t first_row,
                         std::int32_t* key, std::int32_t* row);
  /// prices [stride] as above; cheap_padding [stride] is 0, padding kNoSite.
  void (*certificate)(const CostRows& rows, const std::int32_t* label, const std::int32_t* prices,
                      const std::int32_t* cheap_padding, RowCertificate* sums);
};

const AssignmentRows& assignment_rows(InstructionSet set);
const AssignmentRows& assignment_rows_avx2();
const AssignmentRows& assignment_rows_avx512();

}  // namespace moefy::cpu
