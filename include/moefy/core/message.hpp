#pragma once

#include <cstddef>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace moefy {

/// Writes values and arrays one after another, for ranks that run the same program on the same kind
/// of machine. Arrays begin at multiples of kMessageAlignment, so that they can be used in place.
inline constexpr std::size_t kMessageAlignment = 16;

class MessageWriter {
 public:
  template <class T>
  requires std::is_trivially_copyable_v<T>
  void add(const T& value) { append(std::as_bytes(std::span(&value, 1))); }
  template <class T>
  requires std::is_trivially_copyable_v<T>
  void add_all(std::span<const T> values) {
    add(values.size());
    bytes_.resize((bytes_.size() + kMessageAlignment - 1) / kMessageAlignment * kMessageAlignment);
    append(std::as_bytes(values));
  }
  template <class T>
  void add_all(const std::vector<T>& values) {
    add_all(std::span<const T>(values));
  }
  void add_text(const std::string& text) { add_all(std::span<const char>(text)); }
  std::vector<std::byte> take() { return std::move(bytes_); }

 private:
  void append(std::span<const std::byte> bytes) {
    const std::size_t end = bytes_.size();
    bytes_.resize(end + bytes.size());
    if (!bytes.empty()) std::memcpy(bytes_.data() + end, bytes.data(), bytes.size());
  }
  std::vector<std::byte> bytes_;
};

/// Reads what a MessageWriter wrote, in the same order. InternalError if the message is shorter.
class MessageReader {
 public:
  explicit MessageReader(std::vector<std::byte> bytes) : bytes_(std::move(bytes)) {}

  template <class T>
  requires std::is_trivially_copyable_v<T> T next() {
    T value;
    std::memcpy(&value, take(sizeof value).data(), sizeof value);
    return value;
  }
  /// An array, inside the message: valid as long as the reader.
  template <class T>
  requires std::is_trivially_copyable_v<T> std::span<const T> next_all() {
    static_assert(alignof(T) <= kMessageAlignment);
    const auto count = next<std::size_t>();
    at_ = (at_ + kMessageAlignment - 1) / kMessageAlignment * kMessageAlignment;
    const auto bytes = take_array(count, sizeof(T));
    return {reinterpret_cast<const T*>(bytes.data()), count};
  }
  std::string next_text() {
    const auto text = next_all<char>();
    return {text.begin(), text.end()};
  }

 private:
  std::span<const std::byte> take(std::size_t size);
  std::span<const std::byte> take_array(std::size_t count, std::size_t size);

  std::vector<std::byte> bytes_;
  std::size_t at_ = 0;
};

}  // namespace moefy
