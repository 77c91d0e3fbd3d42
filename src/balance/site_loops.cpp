#include "site_loops.hpp"

#include <algorithm>

namespace moefy {
namespace {

template <class Cost>
std::size_t first_least(const Cost* distance, const Cost* closed, std::size_t num_sites,
                        Cost* least) {
  Cost minimum = std::max(distance[0], closed[0]);
  for (std::size_t v = 1; v < num_sites; ++v) {
    minimum = std::min(minimum, std::max(distance[v], closed[v]));
  }
  *least = minimum;
  std::size_t v = 0;
  while (std::max(distance[v], closed[v]) != minimum) ++v;
  return v;
}

template <class Cost>
std::size_t relax(Cost base, const Cost* price, const Cost* key, const std::int32_t* row,
                  std::int32_t site, std::size_t num_sites, Cost* distance, std::int32_t* parent,
                  std::int32_t* stale) {
  std::size_t num_stale = 0;
  for (std::size_t v = 0; v < num_sites; ++v) {
    const Cost candidate = base + price[v] + key[v];
    if (candidate >= distance[v]) continue;
    if (row[v] < 0) {
      stale[num_stale++] = static_cast<std::int32_t>(v);
    } else {
      distance[v] = candidate;
      parent[v] = site;
    }
  }
  return num_stale;
}

std::size_t find_row(const std::int32_t* row, std::int32_t wanted, std::size_t num_sites,
                     std::int32_t* found) {
  std::size_t count = 0;
  for (std::size_t v = 0; v < num_sites; ++v) {
    found[count] = static_cast<std::int32_t>(v);
    count += row[v] == wanted ? 1 : 0;
  }
  return count;
}

template <class Cost>
std::size_t keys_within(const Cost* costs, Cost own, const Cost* bound, std::size_t num_sites,
                        std::int32_t* found) {
  std::size_t count = 0;
  for (std::size_t v = 0; v < num_sites; ++v) {
    found[count] = static_cast<std::int32_t>(v);
    count += costs[v] - own <= bound[v] ? 1 : 0;
  }
  return count;
}

template <class Cost>
std::size_t smallest_moves(const Cost* column, std::size_t stride, const std::int32_t* members,
                           std::size_t num_members, const Cost* own, std::size_t limit,
                           MoveEntry<Cost>* list) {
  std::size_t size = 0;
  for (std::size_t m = 0; m < num_members; ++m) {
    const std::int32_t row = members[m];
    const auto i = static_cast<std::size_t>(row);
    const Cost key = column[i * stride] - own[i];
    if (size == limit) {
      const MoveEntry<Cost>& last = list[limit - 1];
      if (key > last.key || (key == last.key && row > last.row)) continue;
    }
    size = insert_sorted(list, size, limit, key, row);
  }
  return size;
}

template <class Cost>
constexpr SiteLoops<Cost> kPlainLoops = {first_least<Cost>, relax<Cost>, find_row,
                                         keys_within<Cost>, smallest_moves<Cost>};

}  // namespace

template <>
const SiteLoops<std::int32_t>& site_loops([[maybe_unused]] InstructionSet set) {
#if defined(__x86_64__)
  if (set >= InstructionSet::avx512_vnni) return site_loops_avx512();
  if (set == InstructionSet::avx2) return site_loops_avx2();
#endif
  return kPlainLoops<std::int32_t>;
}

template <>
const SiteLoops<std::int64_t>& site_loops(InstructionSet) {
  return kPlainLoops<std::int64_t>;
}

}  // namespace moefy
