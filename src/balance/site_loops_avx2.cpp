#if defined(__x86_64__)

#include <immintrin.h>

#include "site_loops.hpp"

namespace moefy {
namespace {

constexpr std::size_t kLanes = 8;

inline __m256i load(const std::int32_t* values) {
  return _mm256_load_si256(reinterpret_cast<const __m256i*>(values));
}

inline unsigned lane_mask(__m256i lanes) {
  return static_cast<unsigned>(_mm256_movemask_ps(_mm256_castsi256_ps(lanes)));
}

// Writes the lanes of `mask`, counted from site `first`, behind `count` found sites.
inline std::size_t append(std::int32_t* found, std::size_t count, unsigned mask,
                          std::size_t first) {
  for (; mask != 0; mask &= mask - 1) {
    found[count++] = static_cast<std::int32_t>(first) + __builtin_ctz(mask);
  }
  return count;
}

inline std::int32_t least_lane(__m256i values) {
  __m128i low = _mm_min_epi32(_mm256_castsi256_si128(values), _mm256_extracti128_si256(values, 1));
  low = _mm_min_epi32(low, _mm_shuffle_epi32(low, 0x4E));
  low = _mm_min_epi32(low, _mm_shuffle_epi32(low, 0xB1));
  return _mm_cvtsi128_si32(low);
}

std::size_t first_least(const std::int32_t* distance, const std::int32_t* closed,
                        std::size_t num_sites, std::int32_t* least) {
  __m256i minimum = _mm256_set1_epi32(INT32_MAX);
  for (std::size_t v = 0; v < num_sites; v += kLanes) {
    minimum = _mm256_min_epi32(minimum, _mm256_max_epi32(load(distance + v), load(closed + v)));
  }
  *least = least_lane(minimum);
  const __m256i wanted = _mm256_set1_epi32(*least);
  for (std::size_t v = 0;; v += kLanes) {
    const __m256i open = _mm256_max_epi32(load(distance + v), load(closed + v));
    const unsigned equal = lane_mask(_mm256_cmpeq_epi32(open, wanted));
    if (equal != 0) return v + static_cast<std::size_t>(__builtin_ctz(equal));
  }
}

std::size_t relax(std::int32_t base, const std::int32_t* price, const std::int32_t* key,
                  const std::int32_t* row, std::int32_t site, std::size_t num_sites,
                  std::int32_t* distance, std::int32_t* parent, std::int32_t* stale) {
  const __m256i bases = _mm256_set1_epi32(base);
  const __m256i sites = _mm256_set1_epi32(site);
  std::size_t num_stale = 0;
  for (std::size_t v = 0; v < num_sites; v += kLanes) {
    const __m256i priced = _mm256_add_epi32(bases, load(price + v));
    const __m256i candidate = _mm256_add_epi32(priced, load(key + v));
    const __m256i better = _mm256_cmpgt_epi32(load(distance + v), candidate);
    const unsigned lanes = lane_mask(better);
    if (lanes == 0) continue;
    const __m256i unknown = _mm256_srai_epi32(load(row + v), 31);
    const __m256i exact = _mm256_andnot_si256(unknown, better);
    _mm256_maskstore_epi32(distance + v, exact, candidate);
    _mm256_maskstore_epi32(parent + v, exact, sites);
    num_stale = append(stale, num_stale, lanes & lane_mask(unknown), v);
  }
  return num_stale;
}

std::size_t find_row(const std::int32_t* row, std::int32_t wanted, std::size_t num_sites,
                     std::int32_t* found) {
  const __m256i rows = _mm256_set1_epi32(wanted);
  std::size_t count = 0;
  for (std::size_t v = 0; v < num_sites; v += kLanes) {
    count = append(found, count, lane_mask(_mm256_cmpeq_epi32(load(row + v), rows)), v);
  }
  return count;
}

std::size_t keys_within(const std::int32_t* costs, std::int32_t own, const std::int32_t* bound,
                        std::size_t num_sites, std::int32_t* found) {
  const __m256i owns = _mm256_set1_epi32(own);
  std::size_t count = 0;
  for (std::size_t v = 0; v < num_sites; v += kLanes) {
    const __m256i key = _mm256_sub_epi32(load(costs + v), owns);
    const unsigned above = lane_mask(_mm256_cmpgt_epi32(key, load(bound + v)));
    count = append(found, count, ~above & 0xFFU, v);
  }
  return count;
}

std::size_t smallest_moves(const std::int32_t* column, std::size_t stride,
                           const std::int32_t* members, std::size_t num_members,
                           const std::int32_t* own, std::size_t limit,
                           MoveEntry<std::int32_t>* list) {
  const __m256i strides = _mm256_set1_epi32(static_cast<std::int32_t>(stride));
  const __m256i lane_numbers = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  const __m256i zero = _mm256_setzero_si256();
  std::size_t size = 0;
  std::int32_t cut = INT32_MAX;
  alignas(32) std::int32_t keys[kLanes];
  for (std::size_t m = 0; m < num_members; m += kLanes) {
    const auto left =
        static_cast<std::int32_t>(num_members - m < kLanes ? num_members - m : kLanes);
    const __m256i in = _mm256_cmpgt_epi32(_mm256_set1_epi32(left), lane_numbers);
    const __m256i rows = _mm256_maskload_epi32(members + m, in);
    const __m256i cost =
        _mm256_mask_i32gather_epi32(zero, column, _mm256_mullo_epi32(rows, strides), in, 4);
    const __m256i key = _mm256_sub_epi32(cost, _mm256_mask_i32gather_epi32(zero, own, rows, in, 4));
    const __m256i above = _mm256_cmpgt_epi32(key, _mm256_set1_epi32(cut));
    unsigned hits = lane_mask(_mm256_andnot_si256(above, in));
    if (hits == 0) continue;
    _mm256_store_si256(reinterpret_cast<__m256i*>(keys), key);
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

const SiteLoops<std::int32_t>& site_loops_avx2() {
  static constexpr SiteLoops<std::int32_t> kLoops = {first_least, relax, find_row, keys_within,
                                                     smallest_moves};
  return kLoops;
}

}  // namespace moefy

#endif
