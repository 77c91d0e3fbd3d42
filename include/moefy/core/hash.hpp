#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace moefy {

/// An XXH3-128 value.
struct Digest {
  std::uint64_t low = 0;
  std::uint64_t high = 0;
  bool operator==(const Digest&) const = default;
  /// 32 hexadecimal digits, high half first.
  std::string hex() const;
};

/// XXH3-128 of everything added, independent of how it was cut into pieces.
class Hasher {
 public:
  Hasher();
  ~Hasher();
  Hasher(Hasher&&) noexcept;
  Hasher& operator=(Hasher&&) noexcept;

  void add(std::span<const std::byte> bytes);
  /// Adds the length and then the text, so that ("ab","c") differs from ("a","bc").
  void add_text(std::string_view text);
  /// Adds a number as eight little-endian bytes.
  void add_number(std::uint64_t value);
  Digest digest() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

Digest hash_bytes(std::span<const std::byte> bytes);

}  // namespace moefy
