#include "moefy/core/dtype.hpp"

#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <utility>

#include "moefy/core/error.hpp"

namespace moefy {

namespace {

struct DTypeRow {
  DType dtype;
  std::string_view name;
  std::size_t bytes;
};

constexpr std::array<DTypeRow, 15> kDTypes{{
    {DType::f64, "F64", 8},
    {DType::f32, "F32", 4},
    {DType::f16, "F16", 2},
    {DType::bf16, "BF16", 2},
    {DType::f8_e4m3, "F8_E4M3", 1},
    {DType::f8_e5m2, "F8_E5M2", 1},
    {DType::i64, "I64", 8},
    {DType::i32, "I32", 4},
    {DType::i16, "I16", 2},
    {DType::i8, "I8", 1},
    {DType::u64, "U64", 8},
    {DType::u32, "U32", 4},
    {DType::u16, "U16", 2},
    {DType::u8, "U8", 1},
    {DType::boolean, "BOOL", 1},
}};

const DTypeRow& row_of(DType dtype) {
  for (const DTypeRow& row : kDTypes)
    if (row.dtype == dtype) return row;
  throw InternalError("unknown dtype");
}

std::uint16_t load_u16(const std::byte* bytes) {
  std::uint16_t value;
  std::memcpy(&value, bytes, sizeof value);
  return value;
}

}  // namespace

std::size_t size_of(DType dtype) { return row_of(dtype).bytes; }
std::string_view name_of(DType dtype) { return row_of(dtype).name; }

std::optional<DType> dtype_from_name(std::string_view name) {
  for (const DTypeRow& row : kDTypes)
    if (row.name == name) return row.dtype;
  return std::nullopt;
}

bool is_ffn_dtype(DType dtype) {
  return dtype == DType::f32 || dtype == DType::f16 || dtype == DType::bf16;
}

float half_to_float(std::uint16_t bits) {
  const std::uint32_t sign = static_cast<std::uint32_t>(bits & 0x8000u) << 16;
  const std::uint32_t magnitude = bits & 0x7fffu;
  // Shift exponent and mantissa into place and repair the bias by a multiplication, which also
  // normalises subnormal halves exactly.
  const float scaled = std::bit_cast<float>(magnitude << 13) * 0x1p112f;
  const std::uint32_t value = magnitude >= 0x7c00u ? 0x7f800000u | (magnitude & 0x3ffu) << 13
                                                   : std::bit_cast<std::uint32_t>(scaled);
  return std::bit_cast<float>(sign | value);
}

std::uint16_t float_to_half(float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  const auto sign = static_cast<std::uint16_t>(bits >> 16 & 0x8000u);
  const std::uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<std::uint16_t>(sign | 0x7e00u);
  if (magnitude >= 0x477ff000u) return static_cast<std::uint16_t>(sign | 0x7c00u);  // >= 65520
  if (magnitude < 0x38800000u) {
    // Subnormal half: adding 0.5 leaves the rounded value in the low mantissa bits.
    const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
    return static_cast<std::uint16_t>(sign | (std::bit_cast<std::uint32_t>(shifted) - 0x3f000000u));
  }
  const std::uint32_t odd = magnitude >> 13 & 1u;
  return static_cast<std::uint16_t>(sign | (magnitude - 0x38000000u + 0xfffu + odd) >> 13);
}

std::uint16_t float_to_bfloat16(float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<std::uint16_t>(bits >> 16 | 0x40u);
  return static_cast<std::uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

void widen(DType dtype, std::span<const std::byte> raw, std::span<float> out) {
  require(raw.size() == out.size() * size_of(dtype), "widen: sizes differ");
  const std::byte* in = raw.data();
  switch (dtype) {
    case DType::f32:
      std::memcpy(out.data(), in, raw.size());
      return;
    case DType::bf16:
      for (std::size_t i = 0; i < out.size(); ++i) out[i] = bfloat16_to_float(load_u16(in + 2 * i));
      return;
    case DType::f16:
      for (std::size_t i = 0; i < out.size(); ++i) out[i] = half_to_float(load_u16(in + 2 * i));
      return;
    default:
      throw InternalError("widen: only F32, F16 and BF16 are computed with");
  }
}

void narrow(DType dtype, std::span<const float> values, std::span<std::byte> raw) {
  require(raw.size() == values.size() * size_of(dtype), "narrow: sizes differ");
  std::byte* out = raw.data();
  const auto store = [out](std::size_t i, std::uint16_t bits) {
    std::memcpy(out + 2 * i, &bits, sizeof bits);
  };
  switch (dtype) {
    case DType::f32:
      std::memcpy(out, values.data(), raw.size());
      return;
    case DType::bf16:
      for (std::size_t i = 0; i < values.size(); ++i) store(i, float_to_bfloat16(values[i]));
      return;
    case DType::f16:
      for (std::size_t i = 0; i < values.size(); ++i) store(i, float_to_half(values[i]));
      return;
    default:
      throw InternalError("narrow: only F32, F16 and BF16 are computed with");
  }
}

std::optional<std::size_t> first_non_finite(std::span<const float> values) {
  // Blocks without an early exit vectorise; the place is looked up only when there is one.
  constexpr std::size_t kBlock = 4096;
  for (std::size_t begin = 0; begin < values.size(); begin += kBlock) {
    const std::size_t end = std::min(values.size(), begin + kBlock);
    std::uint32_t found = 0;
    for (std::size_t i = begin; i < end; ++i) {
      const std::uint32_t bits = std::bit_cast<std::uint32_t>(values[i]);
      found |= static_cast<std::uint32_t>((bits & 0x7f800000u) == 0x7f800000u);
    }
    if (!found) continue;
    for (std::size_t i = begin; i < end; ++i)
      if (!std::isfinite(values[i])) return i;
  }
  return std::nullopt;
}

}  // namespace moefy
