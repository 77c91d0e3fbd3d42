#include "gather.hpp"

#include <cmath>
#include <cstring>

#include "moefy/core/error.hpp"

namespace moefy {

namespace {

std::vector<std::uint16_t> product_table(DType dtype, int log2) {
  constexpr std::size_t kValues = 1u << 16;
  std::vector<std::uint16_t> bits(kValues);
  for (std::size_t i = 0; i < kValues; ++i) bits[i] = static_cast<std::uint16_t>(i);
  std::vector<float> values(kValues);
  widen(dtype, std::as_bytes(std::span(bits)), values);
  for (float& value : values) value = std::ldexp(value, log2);
  std::vector<std::uint16_t> table(kValues);
  narrow(dtype, values, std::as_writable_bytes(std::span(table)));
  return table;
}

template <class Element>
void gather_as(const std::byte* row, std::span<const std::int32_t> neurons, std::byte* out) {
  const auto* from = reinterpret_cast<const Element*>(row);
  auto* to = reinterpret_cast<Element*>(out);
  for (std::size_t i = 0; i < neurons.size(); ++i) to[i] = from[neurons[i]];
}

template <class Element>
void scatter_as(const std::byte* in, std::span<const std::int32_t> neurons, std::byte* row) {
  const auto* from = reinterpret_cast<const Element*>(in);
  auto* to = reinterpret_cast<Element*>(row);
  for (std::size_t i = 0; i < neurons.size(); ++i) to[neurons[i]] = from[i];
}

}  // namespace

PowerOfTwoScale::PowerOfTwoScale(DType dtype, int log2) : dtype_(dtype), log2_(log2) {
  if (log2 != 0 && size_of(dtype) == 2) table_ = product_table(dtype, log2);
}

std::ptrdiff_t PowerOfTwoScale::apply(std::span<std::byte> values) const {
  if (is_identity()) return -1;
  bool finite = true;
  if (dtype_ == DType::f32) {
    const std::span<float> floats{reinterpret_cast<float*>(values.data()),
                                  values.size() / sizeof(float)};
    const float factor = std::ldexp(1.0f, log2_);
    for (float& value : floats) {
      value *= factor;
      finite &= std::isfinite(value);
    }
    if (finite) return -1;
    return static_cast<std::ptrdiff_t>(first_non_finite(floats).value());
  }
  const std::span<std::uint16_t> halves{reinterpret_cast<std::uint16_t*>(values.data()),
                                        values.size() / sizeof(std::uint16_t)};
  const unsigned exponent = dtype_ == DType::f16 ? 0x7c00u : 0x7f80u;
  for (std::uint16_t& value : halves) {
    value = table_[value];
    finite &= (value & exponent) != exponent;
  }
  if (finite) return -1;
  std::ptrdiff_t first = 0;
  while ((halves[static_cast<std::size_t>(first)] & exponent) != exponent) ++first;
  return first;
}

std::ptrdiff_t multiply_rounded(DType dtype, double factor, std::span<std::byte> values) {
  std::vector<float> wide(values.size() / size_of(dtype));
  widen(dtype, values, wide);
  for (float& value : wide) value = static_cast<float>(static_cast<double>(value) * factor);
  narrow(dtype, wide, values);
  widen(dtype, values, wide);
  const auto bad = first_non_finite(wide);
  return bad ? static_cast<std::ptrdiff_t>(*bad) : -1;
}

void gather_rows(std::span<const std::byte> rows, std::size_t row_bytes,
                 std::span<const std::int32_t> neurons, std::span<std::byte> out) {
  for (std::size_t i = 0; i < neurons.size(); ++i)
    std::memcpy(out.data() + i * row_bytes,
                rows.data() + static_cast<std::size_t>(neurons[i]) * row_bytes, row_bytes);
}

void scatter_rows(std::span<const std::byte> in, std::size_t row_bytes,
                  std::span<const std::int32_t> neurons, std::span<std::byte> rows) {
  for (std::size_t i = 0; i < neurons.size(); ++i)
    std::memcpy(rows.data() + static_cast<std::size_t>(neurons[i]) * row_bytes,
                in.data() + i * row_bytes, row_bytes);
}

void gather_elements(const std::byte* row, std::size_t size, std::span<const std::int32_t> neurons,
                     std::byte* out) {
  if (size == 2) return gather_as<std::uint16_t>(row, neurons, out);
  require(size == 4, "FFN elements have two or four bytes");
  gather_as<std::uint32_t>(row, neurons, out);
}

void scatter_elements(const std::byte* in, std::size_t size, std::span<const std::int32_t> neurons,
                      std::byte* row) {
  if (size == 2) return scatter_as<std::uint16_t>(in, neurons, row);
  require(size == 4, "FFN elements have two or four bytes");
  scatter_as<std::uint32_t>(in, neurons, row);
}

}  // namespace moefy
