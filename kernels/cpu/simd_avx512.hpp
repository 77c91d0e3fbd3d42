#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace moefy::cpu {
namespace {

#define MOEFY_INLINE __attribute__((always_inline)) static inline

/// Sixteen lanes in AVX-512 registers; int8 products by VNNI.
struct Avx512 {
  using Float = __m512;
  using Int = __m512i;
  using Long = __m512i;  // eight int64
  struct Double {        // sixteen doubles
    __m512d low, high;
  };

  static constexpr int kFloatRows = 12;
  static constexpr int kWideDotRows = 8;     // of a tile 32 columns wide
  static constexpr int kNarrowDotRows = 16;  // of a tile 16 columns wide
  static constexpr int kPanelVectors = 2;
  static constexpr std::size_t kValuesPerUnit = 4;
  // vpdpbusd takes an unsigned operand: columns are stored with this added.
  static constexpr std::int32_t kOffset = 128;

  MOEFY_INLINE __mmask16 first(std::size_t count) {
    return count >= 16 ? static_cast<__mmask16>(0xffff)
                       : static_cast<__mmask16>((1U << count) - 1U);
  }
  MOEFY_INLINE Float zero() { return _mm512_setzero_ps(); }
  MOEFY_INLINE Float set(float x) { return _mm512_set1_ps(x); }
  MOEFY_INLINE Float load(const float* p) { return _mm512_loadu_ps(p); }
  MOEFY_INLINE Float load_part(const float* p, std::size_t count) {
    return _mm512_maskz_loadu_ps(first(count), p);
  }
  MOEFY_INLINE void store(float* p, Float x) { _mm512_storeu_ps(p, x); }
  MOEFY_INLINE void store_part(float* p, std::size_t count, Float x) {
    _mm512_mask_storeu_ps(p, first(count), x);
  }
  MOEFY_INLINE Float add(Float a, Float b) { return _mm512_add_ps(a, b); }
  MOEFY_INLINE Float sub(Float a, Float b) { return _mm512_sub_ps(a, b); }
  MOEFY_INLINE Float mul(Float a, Float b) { return _mm512_mul_ps(a, b); }
  MOEFY_INLINE Float fma(Float a, Float b, Float c) { return _mm512_fmadd_ps(a, b, c); }
  MOEFY_INLINE Float max(Float a, Float b) { return _mm512_max_ps(a, b); }
  MOEFY_INLINE Float min(Float a, Float b) { return _mm512_min_ps(a, b); }
  MOEFY_INLINE Float abs(Float a) { return _mm512_abs_ps(a); }
  MOEFY_INLINE float reduce_max(Float a) { return _mm512_reduce_max_ps(a); }

  MOEFY_INLINE Int to_int(Float a) { return _mm512_cvtps_epi32(a); }
  MOEFY_INLINE Float to_float(Int a) { return _mm512_cvtepi32_ps(a); }
  MOEFY_INLINE Int izero() { return _mm512_setzero_si512(); }
  MOEFY_INLINE Int iset(std::int32_t x) { return _mm512_set1_epi32(x); }
  MOEFY_INLINE Int iload(const std::int32_t* p) { return _mm512_loadu_si512(p); }
  MOEFY_INLINE void istore(std::int32_t* p, Int x) { _mm512_storeu_si512(p, x); }
  MOEFY_INLINE Int iadd(Int a, Int b) { return _mm512_add_epi32(a, b); }
  MOEFY_INLINE Int isub(Int a, Int b) { return _mm512_sub_epi32(a, b); }
  MOEFY_INLINE Int imax(Int a, Int b) { return _mm512_max_epi32(a, b); }
  MOEFY_INLINE Int imin(Int a, Int b) { return _mm512_min_epi32(a, b); }
  MOEFY_INLINE std::int32_t ireduce_add(Int a) { return _mm512_reduce_add_epi32(a); }
  /// Lane i of `mask` takes the next packed value, other lanes 0.
  MOEFY_INLINE Int expand(std::uint16_t mask, const std::int32_t* packed) {
    return _mm512_maskz_expandloadu_epi32(mask, packed);
  }
  MOEFY_INLINE void istore_masked(std::int32_t* p, std::uint16_t mask, Int x) {
    _mm512_mask_storeu_epi32(p, mask, x);
  }

  /// Adds the four int8 products of each lane's unit.
  MOEFY_INLINE Int dot(Int sum, Int column, Int row) {
    return _mm512_dpbusd_epi32(sum, column, row);
  }
  /// Sixteen small integers as units.
  MOEFY_INLINE void to_units(Int values, std::int32_t* units) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(units), _mm512_cvtepi32_epi8(values));
  }

  /// rows[i][j] becomes rows[j][i].
  MOEFY_INLINE void transpose(Int (&rows)[16]) {
    Int pairs[16];
    _Pragma("GCC unroll 8") for (int i = 0; i < 16; i += 2) {
      pairs[i] = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
      pairs[i + 1] = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
    }
    _Pragma("GCC unroll 4") for (int i = 0; i < 16; i += 4) {
      rows[i] = _mm512_unpacklo_epi64(pairs[i], pairs[i + 2]);
      rows[i + 1] = _mm512_unpackhi_epi64(pairs[i], pairs[i + 2]);
      rows[i + 2] = _mm512_unpacklo_epi64(pairs[i + 1], pairs[i + 3]);
      rows[i + 3] = _mm512_unpackhi_epi64(pairs[i + 1], pairs[i + 3]);
    }
    // Now a quarter of rows[4 i + j] holds what rows 4 i … 4 i + 3 had in one column.
    _Pragma("GCC unroll 4") for (int i = 0; i < 4; ++i) {
      const Int even_low = _mm512_shuffle_i32x4(rows[i], rows[4 + i], 0x88);
      const Int odd_low = _mm512_shuffle_i32x4(rows[i], rows[4 + i], 0xdd);
      const Int even_high = _mm512_shuffle_i32x4(rows[8 + i], rows[12 + i], 0x88);
      const Int odd_high = _mm512_shuffle_i32x4(rows[8 + i], rows[12 + i], 0xdd);
      pairs[i] = _mm512_shuffle_i32x4(even_low, even_high, 0x88);
      pairs[4 + i] = _mm512_shuffle_i32x4(odd_low, odd_high, 0x88);
      pairs[8 + i] = _mm512_shuffle_i32x4(even_low, even_high, 0xdd);
      pairs[12 + i] = _mm512_shuffle_i32x4(odd_low, odd_high, 0xdd);
    }
    _Pragma("GCC unroll 16") for (int i = 0; i < 16; ++i) rows[i] = pairs[i];
  }

  MOEFY_INLINE Double dzero() { return {_mm512_setzero_pd(), _mm512_setzero_pd()}; }
  MOEFY_INLINE Double widen(Float a) {
    return {_mm512_cvtps_pd(_mm512_castps512_ps256(a)),
            _mm512_cvtps_pd(_mm512_extractf32x8_ps(a, 1))};
  }
  MOEFY_INLINE Double dsub(Double a, Double b) {
    return {_mm512_sub_pd(a.low, b.low), _mm512_sub_pd(a.high, b.high)};
  }
  MOEFY_INLINE Double add_square(Double sum, Double x) {
    return {_mm512_add_pd(sum.low, _mm512_mul_pd(x.low, x.low)),
            _mm512_add_pd(sum.high, _mm512_mul_pd(x.high, x.high))};
  }
  MOEFY_INLINE void dstore(double* p, Double x) {
    _mm512_storeu_pd(p, x.low);
    _mm512_storeu_pd(p + 8, x.high);
  }

  MOEFY_INLINE Long lload(const std::int64_t* p) { return _mm512_loadu_si512(p); }
  MOEFY_INLINE void lstore(std::int64_t* p, Long x) { _mm512_storeu_si512(p, x); }
  MOEFY_INLINE Long ladd(Long a, Long b) { return _mm512_add_epi64(a, b); }
  MOEFY_INLINE Long lsub(Long a, Long b) { return _mm512_sub_epi64(a, b); }
  /// rint(p[0..7] * scale)
  MOEFY_INLINE Long fixed_point(const float* p, double scale) {
    return _mm512_cvtpd_epi64(
        _mm512_mul_pd(_mm512_cvtps_pd(_mm256_loadu_ps(p)), _mm512_set1_pd(scale)));
  }
};

}  // namespace
}  // namespace moefy::cpu
