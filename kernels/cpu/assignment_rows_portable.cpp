#include "cpu/assignment_rows.hpp"

#include "moefy/backend/backend.hpp"

namespace moefy::cpu {
namespace {

#include "cpu/assignment_rows.inl"

void best_sites(const CostRows& rows, const std::int32_t* prices, std::int32_t* label,
                std::int32_t* best, std::int32_t* margin) {
  for (std::size_t i = 0; i < rows.num_rows; ++i) {
    const std::int32_t* const costs = rows.costs + i * rows.stride;
    const std::int32_t least = least_sum(costs, prices, rows.stride);
    std::size_t site = 0;
    while (costs[site] + prices[site] != least) ++site;
    label[i] = static_cast<std::int32_t>(site);
    if (best == nullptr) continue;
    std::int32_t second = kNoSite;
    if (site > 0) second = least_sum(costs, prices, site);
    if (site + 1 < rows.num_sites) {
      const std::int32_t behind =
          least_sum(costs + site + 1, prices + site + 1, rows.num_sites - site - 1);
      second = behind < second ? behind : second;
    }
    best[i] = least;
    margin[i] = second - least;
  }
}

void smallest_moves(const CostRows& rows, const std::int32_t* label, std::int32_t first_row,
                    std::int32_t* key, std::int32_t* row) {
  for (std::size_t i = 0; i < rows.num_rows; ++i) {
    const std::int32_t* const costs = rows.costs + i * rows.stride;
    const auto u = static_cast<std::size_t>(label[i]);
    std::int32_t* const keys = key + u * rows.stride;
    std::int32_t* const ids = row + u * rows.stride;
    const std::int32_t own = costs[u];
    const std::int32_t id = first_row + static_cast<std::int32_t>(i);
    for (std::size_t v = 0; v < rows.stride; ++v) {
      const std::int32_t move = costs[v] - own;
      const bool less = move < keys[v];
      keys[v] = less ? move : keys[v];
      ids[v] = less ? id : ids[v];
    }
  }
}

}  // namespace

const AssignmentRows& assignment_rows([[maybe_unused]] InstructionSet set) {
#if defined(__x86_64__)
  if (set >= InstructionSet::avx512_vnni) return assignment_rows_avx512();
  if (set == InstructionSet::avx2) return assignment_rows_avx2();
#endif
  static constexpr AssignmentRows kRows = {best_sites, smallest_moves, certificate};
  return kRows;
}

}  // namespace moefy::cpu
