#if defined(__x86_64__)

#include "cpu/assignment_rows.hpp"

#include <immintrin.h>

namespace moefy::cpu {
namespace {

#include "cpu/assignment_rows.inl"

constexpr std::size_t kLanes = 8;

inline __m256i load(const std::int32_t* values) {
  return _mm256_load_si256(reinterpret_cast<const __m256i*>(values));
}

inline unsigned lane_mask(__m256i lanes) {
  return static_cast<unsigned>(_mm256_movemask_ps(_mm256_castsi256_ps(lanes)));
}

inline std::int32_t least_lane(__m256i values) {
  __m128i low = _mm_min_epi32(_mm256_castsi256_si128(values), _mm256_extracti128_si256(values, 1));
  low = _mm_min_epi32(low, _mm_shuffle_epi32(low, 0x4E));
  low = _mm_min_epi32(low, _mm_shuffle_epi32(low, 0xB1));
  return _mm_cvtsi128_si32(low);
}

inline std::int32_t find(const std::int32_t* costs, const std::int32_t* prices,
                         std::int32_t wanted) {
  const __m256i values = _mm256_set1_epi32(wanted);
  for (std::size_t v = 0;; v += kLanes) {
    const __m256i sum = _mm256_add_epi32(load(costs + v), load(prices + v));
    const unsigned equal = lane_mask(_mm256_cmpeq_epi32(sum, values));
    if (equal != 0) return static_cast<std::int32_t>(v) + __builtin_ctz(equal);
  }
}

// The two least values of every lane, then of all lanes. The second is the least again if two sites
// share it.
inline void two_least(const std::int32_t* costs, const std::int32_t* prices, std::size_t stride,
                      std::int32_t* least, std::int32_t* second) {
  __m256i first = _mm256_set1_epi32(INT32_MAX);
  __m256i next = first;
  for (std::size_t v = 0; v < stride; v += kLanes) {
    const __m256i sum = _mm256_add_epi32(load(costs + v), load(prices + v));
    next = _mm256_min_epi32(next, _mm256_max_epi32(first, sum));
    first = _mm256_min_epi32(first, sum);
  }
  *least = least_lane(first);
  const unsigned at_least = lane_mask(_mm256_cmpeq_epi32(first, _mm256_set1_epi32(*least)));
  // Take the least out of one lane; what is left there is that lane's second.
  alignas(32) std::int32_t firsts[kLanes];
  alignas(32) std::int32_t nexts[kLanes];
  _mm256_store_si256(reinterpret_cast<__m256i*>(firsts), first);
  _mm256_store_si256(reinterpret_cast<__m256i*>(nexts), next);
  const int lane = __builtin_ctz(at_least);
  firsts[lane] = nexts[lane];
  *second = least_lane(load(firsts));
}

void best_sites(const CostRows& rows, const std::int32_t* prices, std::int32_t* label,
                std::int32_t* best, std::int32_t* margin) {
  for (std::size_t i = 0; i < rows.num_rows; ++i) {
    const std::int32_t* const costs = rows.costs + i * rows.stride;
    if (best != nullptr) {
      std::int32_t second = 0;
      two_least(costs, prices, rows.stride, best + i, &second);
      margin[i] = second - best[i];
      label[i] = find(costs, prices, best[i]);
      continue;
    }
    __m256i minimum = _mm256_add_epi32(load(costs), load(prices));
    for (std::size_t v = kLanes; v < rows.stride; v += kLanes) {
      minimum = _mm256_min_epi32(minimum, _mm256_add_epi32(load(costs + v), load(prices + v)));
    }
    label[i] = find(costs, prices, least_lane(minimum));
  }
}

void smallest_moves(const CostRows& rows, const std::int32_t* label, std::int32_t first_row,
                    std::int32_t* key, std::int32_t* row) {
  for (std::size_t i = 0; i < rows.num_rows; ++i) {
    const std::int32_t* const costs = rows.costs + i * rows.stride;
    const auto u = static_cast<std::size_t>(label[i]);
    std::int32_t* const keys = key + u * rows.stride;
    std::int32_t* const ids = row + u * rows.stride;
    const __m256i own = _mm256_set1_epi32(costs[u]);
    const __m256i id = _mm256_set1_epi32(first_row + static_cast<std::int32_t>(i));
    for (std::size_t v = 0; v < rows.stride; v += kLanes) {
      const __m256i move = _mm256_sub_epi32(load(costs + v), own);
      const __m256i old = load(keys + v);
      const __m256i less = _mm256_cmpgt_epi32(old, move);
      _mm256_store_si256(reinterpret_cast<__m256i*>(keys + v), _mm256_min_epi32(old, move));
      _mm256_store_si256(reinterpret_cast<__m256i*>(ids + v),
                         _mm256_blendv_epi8(load(ids + v), id, less));
    }
  }
}

}  // namespace

const AssignmentRows& assignment_rows_avx2() {
  static constexpr AssignmentRows kRows = {best_sites, smallest_moves, certificate};
  return kRows;
}

}  // namespace moefy::cpu

#endif
