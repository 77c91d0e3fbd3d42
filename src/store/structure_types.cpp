#include "structure_types.hpp"

#include <fmt/format.h>

#include <vector>

namespace moefy {
namespace {

constexpr std::uint64_t kMaxRank = 32;

void check_number(const ElementType& type, Cursor& cursor) {
  const bool plain_size = type.size == 1 || type.size == 2 || type.size == 4 || type.size == 8;
  const auto bit_offset = cursor.take<std::uint16_t>();
  const auto precision = cursor.take<std::uint16_t>();
  expect(plain_size && bit_offset == 0 && precision == 8 * type.size, "numbers of odd bits");
}

void check_float(std::span<const std::byte> bits, const ElementType& type, Cursor& cursor) {
  const unsigned exponent_at = cursor.take<std::uint8_t>();
  const unsigned exponent_bits = cursor.take<std::uint8_t>();
  const unsigned mantissa_at = cursor.take<std::uint8_t>();
  const unsigned mantissa_bits = cursor.take<std::uint8_t>();
  (void)cursor.take<std::uint32_t>();
  const auto sign_at = std::to_integer<unsigned>(bits[1]);
  expect(mantissa_at == 0 && exponent_at == mantissa_bits && exponent_bits > 0 &&
             mantissa_bits > 0 && exponent_at + exponent_bits == sign_at &&
             sign_at + 1 == 8 * type.size,
         "floats of odd bits");
}

}  // namespace

void expect(bool condition, std::string_view problem) {
  if (!condition) throw InputError(std::string(problem));
}

ElementType read_element_type(Cursor& cursor) {
  const auto head = cursor.take<std::uint8_t>();
  const unsigned version = head >> 4U;
  const unsigned type_class = head & 15U;
  expect(version >= 1 && version <= 3, "an unknown element type");
  const auto bits = cursor.take_bytes(3);
  ElementType type;
  type.size = cursor.take<std::uint32_t>();
  switch (type_class) {
    case 0:
      check_number(type, cursor);
      break;
    case 1:
      check_number(type, cursor);
      check_float(bits, type, cursor);
      break;
    case 3:
      type.kind = ElementType::Kind::text;
      expect(type.size > 0, "texts without a size");
      break;
    case 9: {
      type.kind = ElementType::Kind::variable_text;
      const bool is_string = (std::to_integer<unsigned>(bits[0]) & 15U) == 1;
      expect(is_string && type.size == 16, "lists in an element");
      const ElementType element = read_element_type(cursor);
      expect(element.size == 1 && element.kind != ElementType::Kind::variable_text,
             "texts of wide characters");
      break;
    }
    default:
      throw InputError(fmt::format("elements of class {}; expected numbers or texts", type_class));
  }
  return type;
}

std::uint64_t extent_bytes(std::span<const std::byte> space, const ElementType& type) {
  Cursor cursor(space);
  const auto version = cursor.take<std::uint8_t>();
  const std::uint64_t rank = cursor.take<std::uint8_t>();
  const auto flags = cursor.take<std::uint8_t>();
  const auto space_class = cursor.take<std::uint8_t>();
  expect((version == 1 || version == 2) && rank <= kMaxRank && flags <= 1, "an unknown extent");
  if (version == 1) (void)cursor.take<std::uint32_t>();
  const bool fits_class = version == 1 || space_class == (rank == 0 ? 0 : 1);
  expect(fits_class, "an unknown extent");
  std::uint64_t bytes = type.size;
  std::vector<std::uint64_t> extents;
  for (std::uint64_t i = 0; i < rank; ++i) {
    extents.push_back(cursor.take<std::uint64_t>());
    expect(!__builtin_mul_overflow(bytes, extents.back(), &bytes), "is larger than the file");
  }
  for (std::uint64_t i = 0; i < rank && flags == 1; ++i) {
    expect(cursor.take<std::uint64_t>() >= extents[i], "an extent above its own limit");
  }
  return bytes;
}

}  // namespace moefy
