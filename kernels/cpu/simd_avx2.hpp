#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace moefy::cpu {
namespace {

#define MOEFY_INLINE __attribute__((always_inline)) static inline

/// Sixteen lanes in pairs of AVX2 registers. int8 products by vpmaddubsw, which cannot saturate
/// with columns of 7 bits.
struct Avx2 {
  struct Float {
    __m256 low, high;
  };
  struct Int {
    __m256i low, high;
  };
  struct Long {  // eight int64
    __m256i low, high;
  };
  struct Double {  // sixteen doubles
    __m256d part[4];
  };

  static constexpr int kFloatRows = 6;
  static constexpr int kWideDotRows = 4;
  static constexpr int kNarrowDotRows = 4;
  static constexpr int kPanelVectors = 1;
  static constexpr std::size_t kValuesPerUnit = 4;
  // vpmaddubsw takes an unsigned operand: columns are stored with this added.
  static constexpr std::int32_t kOffset = 64;

  MOEFY_INLINE __m256i lane_mask(std::size_t count) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)), lane);
  }
  MOEFY_INLINE Float zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
  MOEFY_INLINE Float set(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
  MOEFY_INLINE Float load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
  MOEFY_INLINE Float load_part(const float* p, std::size_t count) {
    if (count >= 16) return load(p);
    if (count > 8) {
      return {_mm256_loadu_ps(p), _mm256_maskload_ps(p + 8, lane_mask(count - 8))};
    }
    return {_mm256_maskload_ps(p, lane_mask(count)), _mm256_setzero_ps()};
  }
  MOEFY_INLINE void store(float* p, Float x) {
    _mm256_storeu_ps(p, x.low);
    _mm256_storeu_ps(p + 8, x.high);
  }
  MOEFY_INLINE void store_part(float* p, std::size_t count, Float x) {
    if (count >= 16) return store(p, x);
    if (count > 8) {
      _mm256_storeu_ps(p, x.low);
      _mm256_maskstore_ps(p + 8, lane_mask(count - 8), x.high);
    } else {
      _mm256_maskstore_ps(p, lane_mask(count), x.low);
    }
  }
  MOEFY_INLINE Float add(Float a, Float b) {
    return {_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)};
  }
  MOEFY_INLINE Float sub(Float a, Float b) {
    return {_mm256_sub_ps(a.low, b.low), _mm256_sub_ps(a.high, b.high)};
  }
  MOEFY_INLINE Float mul(Float a, Float b) {
    return {_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)};
  }
  MOEFY_INLINE Float fma(Float a, Float b, Float c) {
    return {_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
  }
  MOEFY_INLINE Float max(Float a, Float b) {
    return {_mm256_max_ps(a.low, b.low), _mm256_max_ps(a.high, b.high)};
  }
  MOEFY_INLINE Float min(Float a, Float b) {
    return {_mm256_min_ps(a.low, b.low), _mm256_min_ps(a.high, b.high)};
  }
  MOEFY_INLINE Float abs(Float a) {
    const __m256 sign = _mm256_set1_ps(-0.0F);
    return {_mm256_andnot_ps(sign, a.low), _mm256_andnot_ps(sign, a.high)};
  }
  MOEFY_INLINE float reduce_max(Float a) {
    alignas(32) float lane[8];
    _mm256_store_ps(lane, _mm256_max_ps(a.low, a.high));
    float largest = lane[0];
    for (int i = 1; i < 8; ++i) largest = lane[i] > largest ? lane[i] : largest;
    return largest;
  }

  MOEFY_INLINE Int to_int(Float a) {
    return {_mm256_cvtps_epi32(a.low), _mm256_cvtps_epi32(a.high)};
  }
  MOEFY_INLINE Float to_float(Int a) {
    return {_mm256_cvtepi32_ps(a.low), _mm256_cvtepi32_ps(a.high)};
  }
  MOEFY_INLINE Int izero() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
  MOEFY_INLINE Int iset(std::int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
  MOEFY_INLINE __m256i load8(const std::int32_t* p) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  }
  MOEFY_INLINE void store8(std::int32_t* p, __m256i x) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), x);
  }
  MOEFY_INLINE Int iload(const std::int32_t* p) { return {load8(p), load8(p + 8)}; }
  MOEFY_INLINE void istore(std::int32_t* p, Int x) {
    store8(p, x.low);
    store8(p + 8, x.high);
  }
  MOEFY_INLINE Int iadd(Int a, Int b) {
    return {_mm256_add_epi32(a.low, b.low), _mm256_add_epi32(a.high, b.high)};
  }
  MOEFY_INLINE Int isub(Int a, Int b) {
    return {_mm256_sub_epi32(a.low, b.low), _mm256_sub_epi32(a.high, b.high)};
  }
  MOEFY_INLINE Int imax(Int a, Int b) {
    return {_mm256_max_epi32(a.low, b.low), _mm256_max_epi32(a.high, b.high)};
  }
  MOEFY_INLINE Int imin(Int a, Int b) {
    return {_mm256_min_epi32(a.low, b.low), _mm256_min_epi32(a.high, b.high)};
  }
  MOEFY_INLINE std::int32_t ireduce_add(Int a) {
    alignas(32) std::int32_t lane[8];
    store8(lane, _mm256_add_epi32(a.low, a.high));
    std::int32_t sum = 0;
    for (int i = 0; i < 8; ++i) sum += lane[i];
    return sum;
  }
  MOEFY_INLINE Int expand(std::uint16_t mask, const std::int32_t* packed) {
    alignas(32) std::int32_t lane[16];
    for (int i = 0; i < 16; ++i) lane[i] = (mask >> i & 1) != 0 ? *packed++ : 0;
    return iload(lane);
  }
  MOEFY_INLINE void istore_masked(std::int32_t* p, std::uint16_t mask, Int x) {
    const __m256i bit = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    const __m256i low = _mm256_set1_epi32(mask);
    const __m256i high = _mm256_set1_epi32(mask >> 8);
    _mm256_maskstore_epi32(p, _mm256_cmpeq_epi32(_mm256_and_si256(low, bit), bit), x.low);
    _mm256_maskstore_epi32(p + 8, _mm256_cmpeq_epi32(_mm256_and_si256(high, bit), bit), x.high);
  }

  MOEFY_INLINE __m256i dot8(__m256i sum, __m256i column, __m256i row) {
    const __m256i pairs = _mm256_maddubs_epi16(column, row);
    return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
  }
  /// Adds the four int8 products of each lane's unit.
  MOEFY_INLINE Int dot(Int sum, Int column, Int row) {
    return {dot8(sum.low, column.low, row.low), dot8(sum.high, column.high, row.high)};
  }
  /// Sixteen small integers as units.
  MOEFY_INLINE void to_units(Int values, std::int32_t* units) {
    // Packing works within 128-bit halves; the permutation restores the order.
    const __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(values.low, values.high),
                                                   _MM_SHUFFLE(3, 1, 2, 0));
    _mm_storeu_si128(
        reinterpret_cast<__m128i*>(units),
        _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1)));
  }

  MOEFY_INLINE Double dzero() {
    const __m256d zero = _mm256_setzero_pd();
    return {{zero, zero, zero, zero}};
  }
  MOEFY_INLINE Double widen(Float a) {
    return {{_mm256_cvtps_pd(_mm256_castps256_ps128(a.low)),
             _mm256_cvtps_pd(_mm256_extractf128_ps(a.low, 1)),
             _mm256_cvtps_pd(_mm256_castps256_ps128(a.high)),
             _mm256_cvtps_pd(_mm256_extractf128_ps(a.high, 1))}};
  }
  MOEFY_INLINE Double dsub(Double a, Double b) {
    Double out;
    for (int i = 0; i < 4; ++i) out.part[i] = _mm256_sub_pd(a.part[i], b.part[i]);
    return out;
  }
  MOEFY_INLINE Double add_square(Double sum, Double x) {
    Double out;
    for (int i = 0; i < 4; ++i) {
      out.part[i] = _mm256_add_pd(sum.part[i], _mm256_mul_pd(x.part[i], x.part[i]));
    }
    return out;
  }
  MOEFY_INLINE void dstore(double* p, Double x) {
    for (int i = 0; i < 4; ++i) _mm256_storeu_pd(p + 4 * i, x.part[i]);
  }

  MOEFY_INLINE __m256i load4(const std::int64_t* p) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  }
  MOEFY_INLINE Long lload(const std::int64_t* p) { return {load4(p), load4(p + 4)}; }
  MOEFY_INLINE void lstore(std::int64_t* p, Long x) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), x.low);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p + 4), x.high);
  }
  MOEFY_INLINE Long ladd(Long a, Long b) {
    return {_mm256_add_epi64(a.low, b.low), _mm256_add_epi64(a.high, b.high)};
  }
  MOEFY_INLINE Long lsub(Long a, Long b) {
    return {_mm256_sub_epi64(a.low, b.low), _mm256_sub_epi64(a.high, b.high)};
  }
  MOEFY_INLINE __m256i fixed_point4(const float* p, double scale) {
    // Adding 1.5 * 2^52 leaves the integer, rounded to nearest even, in the low bits.
    const __m256d magic = _mm256_set1_pd(6755399441055744.0);
    const __m256d x = _mm256_mul_pd(_mm256_cvtps_pd(_mm_loadu_ps(p)), _mm256_set1_pd(scale));
    return _mm256_sub_epi64(_mm256_castpd_si256(_mm256_add_pd(x, magic)),
                            _mm256_castpd_si256(magic));
  }
  MOEFY_INLINE Long fixed_point(const float* p, double scale) {
    return {fixed_point4(p, scale), fixed_point4(p + 4, scale)};
  }
};

}  // namespace
}  // namespace moefy::cpu
