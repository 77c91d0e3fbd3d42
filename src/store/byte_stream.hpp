#pragma once

#include "moefy/core/error.hpp"

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace moefy {

static_assert(std::endian::native == std::endian::little,
              "records are written as they lie in memory");

/// Appends plain values; lists and texts come with their length.
class ByteWriter {
 public:
  template <class T>
  requires std::is_trivially_copyable_v<T>
  void value(T value) { append(std::as_bytes(std::span(&value, 1))); }
  template <class T>
  void list(std::span<const T> values) {
    value(static_cast<std::uint64_t>(values.size()));
    append(std::as_bytes(values));
  }
  void text(std::string_view text) { list(std::span(text)); }
  std::vector<std::byte> take() { return std::move(bytes_); }

 private:
  void append(std::span<const std::byte> bytes) {
    bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
  }
  std::vector<std::byte> bytes_;
};

/// Reads them back. Lengths are compared with what is left before memory is taken; the first that
/// does not fit is an InputError.
class ByteReader {
 public:
  explicit ByteReader(std::span<const std::byte> bytes) : left_(bytes) {}

  template <class T>
  requires std::is_trivially_copyable_v<T> T value() {
    T result;
    std::memcpy(&result, next(1, sizeof(T)).data(), sizeof(T));
    return result;
  }
  template <class T>
  std::vector<T> list() {
    const auto count = value<std::uint64_t>();
    const auto bytes = next(count, sizeof(T));
    std::vector<T> result(count);
    if (count > 0) std::memcpy(result.data(), bytes.data(), bytes.size());
    return result;
  }
  std::string text() {
    const auto bytes = next(value<std::uint64_t>(), 1);
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }
  /// The bytes of `count` values of `size` bytes.
  std::span<const std::byte> next(std::uint64_t count, std::size_t size) {
    if (count > left_.size() / size) throw InputError("cut off or damaged");
    const auto bytes = left_.first(count * size);
    left_ = left_.subspan(count * size);
    return bytes;
  }
  bool at_end() const { return left_.empty(); }

 private:
  std::span<const std::byte> left_;
};

}  // namespace moefy
