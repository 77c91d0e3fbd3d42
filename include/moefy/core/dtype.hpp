#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace moefy {

/// Element types of a safetensors file. Only f32, f16 and bf16 are ever computed with; all others
/// pass through as bytes.
enum class DType : std::uint8_t {
  f64,
  f32,
  f16,
  bf16,
  f8_e4m3,
  f8_e5m2,
  i64,
  i32,
  i16,
  i8,
  u64,
  u32,
  u16,
  u8,
  boolean,
};

/// Size of one element in bytes.
std::size_t size_of(DType dtype);
/// The name in a safetensors header, such as "BF16".
std::string_view name_of(DType dtype);
/// The type with that safetensors name, if there is one.
std::optional<DType> dtype_from_name(std::string_view name);
/// True for the three types that FFN tensors may have.
bool is_ffn_dtype(DType dtype);

float half_to_float(std::uint16_t bits);
inline float bfloat16_to_float(std::uint16_t bits) {
  return __builtin_bit_cast(float, static_cast<std::uint32_t>(bits) << 16);
}
/// Round to nearest even, as torch does; NaN stays NaN, overflow becomes infinity.
std::uint16_t float_to_half(float value);
std::uint16_t float_to_bfloat16(float value);

/// Widens raw little-endian elements of `dtype` (f32, f16, bf16) to float. `raw` holds
/// out.size() elements. Throws InternalError for other types.
void widen(DType dtype, std::span<const std::byte> raw, std::span<float> out);
/// Rounds floats to `dtype` (f32, f16, bf16); `raw` has room for values.size() elements.
void narrow(DType dtype, std::span<const float> values, std::span<std::byte> raw);

/// Index of the first NaN or infinity.
std::optional<std::size_t> first_non_finite(std::span<const float> values);

}  // namespace moefy
