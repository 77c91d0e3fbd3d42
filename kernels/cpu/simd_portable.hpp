#pragma once

#include <cstddef>
#include <cstdint>

namespace moefy::cpu {
namespace {

#define MOEFY_INLINE __attribute__((always_inline)) static inline

/// Sixteen lanes as arrays, for any processor; the compiler makes of them what it can.
struct Portable {
  struct Float {
    float lane[16];
  };
  struct Int {
    std::int32_t lane[16];
  };
  struct Long {
    std::int64_t lane[8];
  };
  struct Double {
    double lane[16];
  };

  static constexpr int kFloatRows = 2;
  static constexpr int kWideDotRows = 2;
  static constexpr int kNarrowDotRows = 2;
  static constexpr int kPanelVectors = 1;
  static constexpr std::size_t kValuesPerUnit = 2;
  static constexpr std::int32_t kOffset = 0;

  template <class Out, class Function>
  MOEFY_INLINE Out each(Function function) {
    Out out;
    for (int i = 0; i < 16; ++i) out.lane[i] = function(i);
    return out;
  }

  MOEFY_INLINE Float zero() { return set(0); }
  MOEFY_INLINE Float set(float x) {
    return each<Float>([&](int) { return x; });
  }
  MOEFY_INLINE Float load(const float* p) {
    return each<Float>([&](int i) { return p[i]; });
  }
  MOEFY_INLINE Float load_part(const float* p, std::size_t count) {
    return each<Float>([&](int i) { return static_cast<std::size_t>(i) < count ? p[i] : 0.0F; });
  }
  MOEFY_INLINE void store(float* p, Float x) {
    for (int i = 0; i < 16; ++i) p[i] = x.lane[i];
  }
  MOEFY_INLINE void store_part(float* p, std::size_t count, Float x) {
    for (std::size_t i = 0; i < 16 && i < count; ++i) p[i] = x.lane[i];
  }
  MOEFY_INLINE Float add(const Float& a, const Float& b) {
    return each<Float>([&](int i) { return a.lane[i] + b.lane[i]; });
  }
  MOEFY_INLINE Float sub(const Float& a, const Float& b) {
    return each<Float>([&](int i) { return a.lane[i] - b.lane[i]; });
  }
  MOEFY_INLINE Float mul(const Float& a, const Float& b) {
    return each<Float>([&](int i) { return a.lane[i] * b.lane[i]; });
  }
  // Two roundings: std::fma without the instruction is a slow library call.
  MOEFY_INLINE Float fma(const Float& a, const Float& b, const Float& c) {
    return each<Float>([&](int i) { return a.lane[i] * b.lane[i] + c.lane[i]; });
  }
  MOEFY_INLINE Float max(const Float& a, const Float& b) {
    return each<Float>([&](int i) { return a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i]; });
  }
  MOEFY_INLINE Float min(const Float& a, const Float& b) {
    return each<Float>([&](int i) { return a.lane[i] < b.lane[i] ? a.lane[i] : b.lane[i]; });
  }
  MOEFY_INLINE Float abs(const Float& a) {
    return each<Float>([&](int i) { return a.lane[i] < 0 ? -a.lane[i] : a.lane[i]; });
  }
  MOEFY_INLINE float reduce_max(const Float& a) {
    float largest = a.lane[0];
    for (int i = 1; i < 16; ++i) largest = a.lane[i] > largest ? a.lane[i] : largest;
    return largest;
  }

  MOEFY_INLINE Int to_int(const Float& a) {
    // Nearest, ties to even, in the default rounding mode; also for values beyond 2^22.
    return each<Int>([&](int i) { return static_cast<std::int32_t>(__builtin_lrintf(a.lane[i])); });
  }
  MOEFY_INLINE Float to_float(const Int& a) {
    return each<Float>([&](int i) { return static_cast<float>(a.lane[i]); });
  }
  MOEFY_INLINE Int izero() { return iset(0); }
  MOEFY_INLINE Int iset(std::int32_t x) {
    return each<Int>([&](int) { return x; });
  }
  MOEFY_INLINE Int iload(const std::int32_t* p) {
    return each<Int>([&](int i) { return p[i]; });
  }
  MOEFY_INLINE void istore(std::int32_t* p, const Int& x) {
    for (int i = 0; i < 16; ++i) p[i] = x.lane[i];
  }
  MOEFY_INLINE Int iadd(const Int& a, const Int& b) {
    return each<Int>([&](int i) { return a.lane[i] + b.lane[i]; });
  }
  MOEFY_INLINE Int isub(const Int& a, const Int& b) {
    return each<Int>([&](int i) { return a.lane[i] - b.lane[i]; });
  }
  MOEFY_INLINE Int imax(const Int& a, const Int& b) {
    return each<Int>([&](int i) { return a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i]; });
  }
  MOEFY_INLINE Int imin(const Int& a, const Int& b) {
    return each<Int>([&](int i) { return a.lane[i] < b.lane[i] ? a.lane[i] : b.lane[i]; });
  }
  MOEFY_INLINE std::int32_t ireduce_add(const Int& a) {
    std::int32_t sum = 0;
    for (int i = 0; i < 16; ++i) sum += a.lane[i];
    return sum;
  }
  MOEFY_INLINE Int expand(std::uint16_t mask, const std::int32_t* packed) {
    return each<Int>([&](int i) { return (mask >> i & 1) != 0 ? *packed++ : 0; });
  }
  MOEFY_INLINE void istore_masked(std::int32_t* p, std::uint16_t mask, const Int& x) {
    for (int i = 0; i < 16; ++i) {
      if ((mask >> i & 1) != 0) p[i] = x.lane[i];
    }
  }

  // A unit holds two 16-bit values, the first in the low half.
  MOEFY_INLINE std::int32_t low(std::int32_t unit) { return static_cast<std::int16_t>(unit); }
  MOEFY_INLINE std::int32_t high(std::int32_t unit) { return unit >> 16; }
  MOEFY_INLINE Int dot(const Int& sum, const Int& column, const Int& row) {
    return each<Int>([&](int i) {
      return sum.lane[i] + low(column.lane[i]) * low(row.lane[i]) +
             high(column.lane[i]) * high(row.lane[i]);
    });
  }
  MOEFY_INLINE void to_units(const Int& values, std::int32_t* units) {
    for (int i = 0; i < 8; ++i) {
      const auto first = static_cast<std::uint32_t>(values.lane[2 * i]) & 0xffffU;
      const auto second = static_cast<std::uint32_t>(values.lane[2 * i + 1]) << 16;
      units[i] = static_cast<std::int32_t>(first | second);
    }
  }

  MOEFY_INLINE Double dzero() {
    return each<Double>([](int) { return 0.0; });
  }
  MOEFY_INLINE Double widen(const Float& a) {
    return each<Double>([&](int i) { return static_cast<double>(a.lane[i]); });
  }
  MOEFY_INLINE Double dsub(const Double& a, const Double& b) {
    return each<Double>([&](int i) { return a.lane[i] - b.lane[i]; });
  }
  MOEFY_INLINE Double add_square(const Double& sum, const Double& x) {
    return each<Double>([&](int i) { return sum.lane[i] + x.lane[i] * x.lane[i]; });
  }
  MOEFY_INLINE void dstore(double* p, const Double& x) {
    for (int i = 0; i < 16; ++i) p[i] = x.lane[i];
  }

  MOEFY_INLINE Long lload(const std::int64_t* p) {
    Long out;
    for (int i = 0; i < 8; ++i) out.lane[i] = p[i];
    return out;
  }
  MOEFY_INLINE void lstore(std::int64_t* p, const Long& x) {
    for (int i = 0; i < 8; ++i) p[i] = x.lane[i];
  }
  MOEFY_INLINE Long ladd(const Long& a, const Long& b) {
    Long out;
    for (int i = 0; i < 8; ++i) out.lane[i] = a.lane[i] + b.lane[i];
    return out;
  }
  MOEFY_INLINE Long lsub(const Long& a, const Long& b) {
    Long out;
    for (int i = 0; i < 8; ++i) out.lane[i] = a.lane[i] - b.lane[i];
    return out;
  }
  MOEFY_INLINE Long fixed_point(const float* p, double scale) {
    // Adding 1.5 * 2^52 leaves the integer, rounded to nearest even, in the low bits.
    constexpr double kMagic = 6755399441055744.0;
    Long out;
    for (int i = 0; i < 8; ++i) {
      const double x = static_cast<double>(p[i]) * scale + kMagic;
      out.lane[i] = __builtin_bit_cast(std::int64_t, x) - __builtin_bit_cast(std::int64_t, kMagic);
    }
    return out;
  }
};

}  // namespace
}  // namespace moefy::cpu
