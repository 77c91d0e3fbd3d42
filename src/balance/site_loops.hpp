#pragma once

#include <cstddef>
#include <cstdint>

#include "moefy/backend/instruction_set.hpp"
#include "moefy/backend/move_entry.hpp"

namespace moefy {

/// The loops over sites or rows in which the exact solver spends its time, for one instruction set.
/// Arrays over sites hold `num_sites` values and are padded to kSiteAlignment, 64-byte aligned (the
/// int64 loops are plain and need neither). All sets give the same integers.
template <class Cost>
struct SiteLoops {
  /// First site of the least max(distance, closed); its value goes to `least`.
  std::size_t (*first_least)(const Cost* distance, const Cost* closed, std::size_t num_sites,
                             Cost* least);
  /// Where base + price + key < distance: takes the new distance and `site` as parent if row >= 0;
  /// otherwise key is only a lower bound, and the site is listed in `stale`. Returns their number.
  std::size_t (*relax)(Cost base, const Cost* price, const Cost* key, const std::int32_t* row,
                       std::int32_t site, std::size_t num_sites, Cost* distance,
                       std::int32_t* parent, std::int32_t* stale);
  /// Lists the sites with row == wanted.
  std::size_t (*find_row)(const std::int32_t* row, std::int32_t wanted, std::size_t num_sites,
                          std::int32_t* found);
  /// Lists the sites with costs - own <= bound.
  std::size_t (*keys_within)(const Cost* costs, Cost own, const Cost* bound, std::size_t num_sites,
                             std::int32_t* found);
  /// The `limit` smallest (column[member * stride] - own[member], member), sorted. Returns how
  /// many.
  std::size_t (*smallest_moves)(const Cost* column, std::size_t stride, const std::int32_t* members,
                                std::size_t num_members, const Cost* own, std::size_t limit,
                                MoveEntry<Cost>* list);
};

/// int64: the plain loops whatever `set` says.
template <class Cost>
const SiteLoops<Cost>& site_loops(InstructionSet set);

const SiteLoops<std::int32_t>& site_loops_avx2();
const SiteLoops<std::int32_t>& site_loops_avx512();

/// Puts (key, row) in order into a list of at most `limit` entries that it belongs to; the last one
/// falls out of a full list. Internal linkage on purpose: each instruction set compiles its own.
template <class Cost>
static inline std::size_t insert_sorted(MoveEntry<Cost>* list, std::size_t size, std::size_t limit,
                                        Cost key, std::int32_t row) {
  std::size_t place = size < limit ? size++ : limit - 1;
  while (place > 0 &&
         (list[place - 1].key > key || (list[place - 1].key == key && list[place - 1].row > row))) {
    list[place] = list[place - 1];
    --place;
  }
  list[place].key = key;
  list[place].row = row;
  return size;
}

}  // namespace moefy
