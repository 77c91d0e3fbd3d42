#include "user_block.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <string_view>

#include "moefy/core/error.hpp"
#include "moefy/core/hash.hpp"

namespace moefy {
namespace {

constexpr std::string_view kMagic = "moefy expert map";
constexpr std::size_t kLengthAt = kMagic.size();
constexpr std::size_t kHashAt = kLengthAt + 8;
constexpr std::size_t kZerosAt = kHashAt + 16;

void put_number(std::span<std::byte> out, std::uint64_t value) {
  for (std::size_t i = 0; i < 8; ++i) out[i] = static_cast<std::byte>(value >> (8 * i));
}

std::uint64_t get_number(std::span<const std::byte> in) {
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < 8; ++i) value |= std::to_integer<std::uint64_t>(in[i]) << (8 * i);
  return value;
}

}  // namespace

void seal_user_block(std::span<std::byte> file) {
  require(file.size() >= kUserBlockSize, "seal_user_block: room for the block");
  const auto block = file.first(kUserBlockSize);
  const auto rest = file.subspan(kUserBlockSize);
  const Digest digest = hash_bytes(rest);
  std::ranges::fill(block, std::byte{0});
  std::ranges::copy(std::as_bytes(std::span(kMagic)), block.begin());
  put_number(block.subspan(kLengthAt), rest.size());
  put_number(block.subspan(kHashAt), digest.low);
  put_number(block.subspan(kHashAt + 8), digest.high);
}

void check_magic(std::span<const std::byte> file, const std::string& name) {
  const auto magic = std::as_bytes(std::span(kMagic));
  const std::size_t comparable = std::min(file.size(), magic.size());
  if (comparable == 0 || !std::ranges::equal(file.first(comparable), magic.first(comparable))) {
    throw InputError(fmt::format("{}: not an expert map of moefy", name));
  }
}

void check_user_block(std::span<const std::byte> file, const std::string& name) {
  check_magic(file, name);
  if (file.size() < kUserBlockSize) {
    throw InputError(fmt::format("{}: cut off after {} bytes, inside the first {}", name,
                                 file.size(), kUserBlockSize));
  }
  const auto rest = file.subspan(kUserBlockSize);
  const std::uint64_t length = get_number(file.subspan(kLengthAt));
  if (length != rest.size()) {
    throw InputError(
        fmt::format("{}: damaged: {} bytes behind the first {}, expected {} (copied "
                    "completely?)",
                    name, rest.size(), kUserBlockSize, length));
  }
  const auto zeros = file.subspan(kZerosAt, kUserBlockSize - kZerosAt);
  if (!std::ranges::all_of(zeros, [](std::byte byte) { return byte == std::byte{0}; })) {
    throw InputError(
        fmt::format("{}: damaged: unexpected bytes in the first {}", name, kUserBlockSize));
  }
  const Digest digest = hash_bytes(rest);
  if (get_number(file.subspan(kHashAt)) != digest.low ||
      get_number(file.subspan(kHashAt + 8)) != digest.high) {
    throw InputError(fmt::format("{}: damaged: the checksum does not match", name));
  }
}

}  // namespace moefy
