#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>

#include "moefy/core/error.hpp"

// Parts of the "HDF5 File Format Specification", version 2, that check_structure reads. Errors are
// InputErrors without a place; the caller knows the path.

namespace moefy {

/// Bytes read in order; running out is an error of the file.
class Cursor {
 public:
  explicit Cursor(std::span<const std::byte> bytes) : bytes_(bytes) {}
  template <class T>
  T take() {
    T value;
    std::memcpy(&value, take_bytes(sizeof(T)).data(), sizeof(T));
    return value;
  }
  std::span<const std::byte> take_bytes(std::uint64_t count) {
    if (count > left()) throw InputError("a structure is cut");
    const auto part = bytes_.subspan(at_, count);
    at_ += count;
    return part;
  }
  std::size_t left() const { return bytes_.size() - at_; }

 private:
  std::span<const std::byte> bytes_;
  std::size_t at_ = 0;
};

/// InputError with `problem` unless `condition`.
void expect(bool condition, std::string_view problem);

/// What the elements of a data set or attribute are.
struct ElementType {
  enum class Kind { number, text, variable_text } kind = Kind::number;
  std::uint64_t size = 0;
};

/// Reads a datatype message: integers, floats, fixed or variable texts; anything else is refused.
ElementType read_element_type(Cursor& cursor);

/// Bytes of all elements of a dataspace message.
std::uint64_t extent_bytes(std::span<const std::byte> space, const ElementType& type);

}  // namespace moefy
