#if defined(__x86_64__)

#include "cpu/assignment_rows.hpp"

#include <immintrin.h>

namespace moefy::cpu {
namespace {

#include "cpu/assignment_rows.inl"

constexpr std::size_t kLanes = 16;

// `groups` of 16 sites stay in registers if their number is known (at most kMaxGroups).
constexpr std::size_t kMaxGroups = 4;

template <std::size_t kGroups, bool kMargins>
void best_sites_of(const CostRows& rows, const std::int32_t* prices, std::int32_t* label,
                   std::int32_t* best, std::int32_t* margin) {
  const std::size_t groups = kGroups != 0 ? kGroups : rows.stride / kLanes;
  for (std::size_t i = 0; i < rows.num_rows; ++i) {
    const std::int32_t* const costs = rows.costs + i * rows.stride;
    __m512i kept[kGroups != 0 ? kGroups : 1];
    __m512i minimum = _mm512_set1_epi32(INT32_MAX);
#pragma GCC unroll 4
    for (std::size_t g = 0; g < groups; ++g) {
      const __m512i value = _mm512_add_epi32(_mm512_load_si512(costs + g * kLanes),
                                             _mm512_load_si512(prices + g * kLanes));
      if constexpr (kGroups != 0) kept[g] = value;
      minimum = _mm512_min_epi32(minimum, value);
    }
    const std::int32_t least = _mm512_reduce_min_epi32(minimum);
    const __m512i wanted = _mm512_set1_epi32(least);
    __m512i second = _mm512_set1_epi32(INT32_MAX);
    std::int32_t site = -1;
#pragma GCC unroll 4
    for (std::size_t g = 0; g < groups; ++g) {
      __m512i value;
      if constexpr (kGroups != 0) {
        value = kept[g];
      } else {
        value = _mm512_add_epi32(_mm512_load_si512(costs + g * kLanes),
                                 _mm512_load_si512(prices + g * kLanes));
      }
      const unsigned equal = _mm512_cmpeq_epi32_mask(value, wanted);
      if (site < 0 && equal != 0) {
        const int lane = __builtin_ctz(equal);
        site = static_cast<std::int32_t>(g * kLanes) + lane;
        if constexpr (!kMargins) break;
        second =
            _mm512_mask_min_epi32(second, static_cast<__mmask16>(~(1U << lane)), second, value);
      } else if constexpr (kMargins) {
        second = _mm512_min_epi32(second, value);
      }
    }
    label[i] = site;
    if constexpr (kMargins) {
      const std::int32_t runner_up = _mm512_reduce_min_epi32(second);
      best[i] = least;
      margin[i] = runner_up - least;
    }
  }
}

template <bool kMargins>
void best_sites_with(const CostRows& rows, const std::int32_t* prices, std::int32_t* label,
                     std::int32_t* best, std::int32_t* margin) {
  switch (rows.stride / kLanes) {
    case 1:
      return best_sites_of<1, kMargins>(rows, prices, label, best, margin);
    case 2:
      return best_sites_of<2, kMargins>(rows, prices, label, best, margin);
    case kMaxGroups:
      return best_sites_of<kMaxGroups, kMargins>(rows, prices, label, best, margin);
    default:
      return best_sites_of<0, kMargins>(rows, prices, label, best, margin);
  }
}

void best_sites(const CostRows& rows, const std::int32_t* prices, std::int32_t* label,
                std::int32_t* best, std::int32_t* margin) {
  if (best != nullptr) {
    best_sites_with<true>(rows, prices, label, best, margin);
  } else {
    best_sites_with<false>(rows, prices, label, best, margin);
  }
}

void smallest_moves(const CostRows& rows, const std::int32_t* label, std::int32_t first_row,
                    std::int32_t* key, std::int32_t* row) {
  for (std::size_t i = 0; i < rows.num_rows; ++i) {
    const std::int32_t* const costs = rows.costs + i * rows.stride;
    const auto u = static_cast<std::size_t>(label[i]);
    std::int32_t* const keys = key + u * rows.stride;
    std::int32_t* const ids = row + u * rows.stride;
    const __m512i own = _mm512_set1_epi32(costs[u]);
    const __m512i id = _mm512_set1_epi32(first_row + static_cast<std::int32_t>(i));
    for (std::size_t v = 0; v < rows.stride; v += kLanes) {
      const __m512i move = _mm512_sub_epi32(_mm512_load_si512(costs + v), own);
      const __mmask16 less = _mm512_cmplt_epi32_mask(move, _mm512_load_si512(keys + v));
      _mm512_mask_store_epi32(keys + v, less, move);
      _mm512_mask_store_epi32(ids + v, less, id);
    }
  }
}

}  // namespace

const AssignmentRows& assignment_rows_avx512() {
  static constexpr AssignmentRows kRows = {best_sites, smallest_moves, certificate};
  return kRows;
}

}  // namespace moefy::cpu

#endif
