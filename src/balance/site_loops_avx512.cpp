#if defined(__x86_64__)

#include <immintrin.h>

#include "site_loops.hpp"

namespace moefy {
namespace {

constexpr std::size_t kLanes = 16;

// Writes the lanes of `mask`, counted from site `first`, behind `count` found sites.
inline std::size_t append(std::int32_t* found, std::size_t count, __mmask16 mask,
                          std::size_t first) {
  for (unsigned bits = mask; bits != 0; bits &= bits - 1) {
    found[count++] = static_cast<std::int32_t>(first) + __builtin_ctz(bits);
  }
  return count;
}

std::size_t first_least(const std::int32_t* distance, const std::int32_t* closed,
                        std::size_t num_sites, std::int32_t* least) {
  __m512i minimum = _mm512_set1_epi32(INT32_MAX);
  for (std::size_t v = 0; v < num_sites; v += kLanes) {
    const __m512i open =
        _mm512_max_epi32(_mm512_load_si512(distance + v), _mm512_load_si512(closed + v));
    minimum = _mm512_min_epi32(minimum, open);
  }
  *least = _mm512_reduce_min_epi32(minimum);
  const __m512i wanted = _mm512_set1_epi32(*least);
  for (std::size_t v = 0;; v += kLanes) {
    const __m512i open =
        _mm512_max_epi32(_mm512_load_si512(distance + v), _mm512_load_si512(closed + v));
    const unsigned equal = _mm512_cmpeq_epi32_mask(open, wanted);
    if (equal != 0) return v + static_cast<std::size_t>(__builtin_ctz(equal));
  }
}

std::size_t relax(std::int32_t base, const std::int32_t* price, const std::int32_t* key,
                  const std::int32_t* row, std::int32_t site, std::size_t num_sites,
                  std::int32_t* distance, std::int32_t* parent, std::int32_t* stale) {
  const __m512i bases = _mm512_set1_epi32(base);
  const __m512i sites = _mm512_set1_epi32(site);
  std::size_t num_stale = 0;
  for (std::size_t v = 0; v < num_sites; v += kLanes) {
    const __m512i priced = _mm512_add_epi32(bases, _mm512_load_si512(price + v));
    const __m512i candidate = _mm512_add_epi32(priced, _mm512_load_si512(key + v));
    const __mmask16 better = _mm512_cmplt_epi32_mask(candidate, _mm512_load_si512(distance + v));
    if (better == 0) continue;
    const __mmask16 unknown = _mm512_movepi32_mask(_mm512_load_si512(row + v));
    const auto exact = static_cast<__mmask16>(better & ~unknown);
    _mm512_mask_store_epi32(distance + v, exact, candidate);
    _mm512_mask_store_epi32(parent + v, exact, sites);
    num_stale = append(stale, num_stale, static_cast<__mmask16>(better & unknown), v);
  }
  return num_stale;
}

std::size_t find_row(const std::int32_t* row, std::int32_t wanted, std::size_t num_sites,
                     std::int32_t* found) {
  const __m512i rows = _mm512_set1_epi32(wanted);
  std::size_t count = 0;
  for (std::size_t v = 0; v < num_sites; v += kLanes) {
    count = append(found, count, _mm512_cmpeq_epi32_mask(_mm512_load_si512(row + v), rows), v);
  }
  return count;
}

std::size_t keys_within(const std::int32_t* costs, std::int32_t own, const std::int32_t* bound,
                        std::size_t num_sites, std::int32_t* found) {
  const __m512i owns = _mm512_set1_epi32(own);
  std::size_t count = 0;
  for (std::size_t v = 0; v < num_sites; v += kLanes) {
    const __m512i key = _mm512_sub_epi32(_mm512_load_si512(costs + v), owns);
    count = append(found, count, _mm512_cmple_epi32_mask(key, _mm512_load_si512(bound + v)), v);
  }
  return count;
}

std::size_t smallest_moves(const std::int32_t* column, std::size_t stride,
                           const std::int32_t* members, std::size_t num_members,
                           const std::int32_t* own, std::size_t limit,
                           MoveEntry<std::int32_t>* list) {
  const __m512i strides = _mm512_set1_epi32(static_cast<std::int32_t>(stride));
  std::size_t size = 0;
  std::int32_t cut = INT32_MAX;
  alignas(64) std::int32_t keys[kLanes];
  for (std::size_t m = 0; m < num_members; m += kLanes) {
    const std::size_t left = num_members - m;
    const auto in = static_cast<__mmask16>(left >= kLanes ? 0xFFFFU : (1U << left) - 1U);
    const __m512i rows = _mm512_maskz_loadu_epi32(in, members + m);
    const __m512i zero = _mm512_setzero_si512();
    const __m512i cost =
        _mm512_mask_i32gather_epi32(zero, in, _mm512_mullo_epi32(rows, strides), column, 4);
    const __m512i key = _mm512_sub_epi32(cost, _mm512_mask_i32gather_epi32(zero, in, rows, own, 4));
    unsigned hits = _mm512_mask_cmple_epi32_mask(in, key, _mm512_set1_epi32(cut));
    if (hits == 0) continue;
    _mm512_store_si512(keys, key);
    for (; hits != 0; hits &= hits - 1) {
      const int lane = __builtin_ctz(hits);
      const std::int32_t row = members[m + static_cast<std::size_t>(lane)];
      if (size == limit) {
        const MoveEntry<std::int32_t>& last = list[limit - 1];
        if (keys[lane] > last.key || (keys[lane] == last.key && row > last.row)) continue;
      }
      size = insert_sorted(list, size, limit, keys[lane], row);
      if (size == limit) cut = list[limit - 1].key;
    }
  }
  return size;
}

}  // namespace

const SiteLoops<std::int32_t>& site_loops_avx512() {
  static constexpr SiteLoops<std::int32_t> kLoops = {first_least, relax, find_row, keys_within,
                                                     smallest_moves};
  return kLoops;
}

}  // namespace moefy

#endif
