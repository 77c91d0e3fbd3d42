#include "moefy/core/random.hpp"

#include <cmath>
#include <numbers>
#include <utility>

namespace moefy {

std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> counter,
                                        std::array<std::uint32_t, 2> key) {
  constexpr std::uint64_t kMultiplier0 = 0xD2511F53;
  constexpr std::uint64_t kMultiplier1 = 0xCD9E8D57;
  constexpr std::uint32_t kWeyl0 = 0x9E3779B9;
  constexpr std::uint32_t kWeyl1 = 0xBB67AE85;
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t product0 = kMultiplier0 * counter[0];
    const std::uint64_t product1 = kMultiplier1 * counter[2];
    counter = {static_cast<std::uint32_t>(product1 >> 32) ^ counter[1] ^ key[0],
               static_cast<std::uint32_t>(product1),
               static_cast<std::uint32_t>(product0 >> 32) ^ counter[3] ^ key[1],
               static_cast<std::uint32_t>(product0)};
    key[0] += kWeyl0;
    key[1] += kWeyl1;
  }
  return counter;
}

RandomStream::RandomStream(std::uint64_t seed, std::uint64_t layer, RandomPurpose purpose,
                           std::uint32_t restart)
    // 64-bit seeds and layers are folded into the two key words; both fit 32 bits in practice.
    : key_{static_cast<std::uint32_t>(seed ^ seed >> 32),
           static_cast<std::uint32_t>(layer ^ layer >> 32)},
      purpose_(static_cast<std::uint32_t>(purpose)),
      restart_(restart) {}

std::uint32_t RandomStream::next_word() {
  if (used_ == words_.size()) {
    words_ = philox4x32({purpose_, restart_, static_cast<std::uint32_t>(block_),
                         static_cast<std::uint32_t>(block_ >> 32)},
                        key_);
    ++block_;
    used_ = 0;
  }
  return words_[used_++];
}

std::uint64_t RandomStream::next_below(std::uint64_t bound) {
  // Rejection of the incomplete last multiple of bound keeps the draw unbiased.
  const std::uint64_t limit = (0 - bound) % bound;
  while (true) {
    const std::uint64_t high = next_word();
    const std::uint64_t value = high << 32 | next_word();
    if (value >= limit) return value % bound;
  }
}

double RandomStream::next_unit() {
  const std::uint64_t high = next_word();
  const std::uint64_t bits = (high << 32 | next_word()) >> 11;
  return static_cast<double>(bits) * 0x1p-53;
}

float RandomStream::next_normal() {
  const double radius = std::sqrt(-2.0 * std::log1p(-next_unit()));
  return static_cast<float>(radius * std::cos(2.0 * std::numbers::pi * next_unit()));
}

void shuffle(std::span<std::int32_t> values, RandomStream& stream) {
  for (std::size_t i = values.size(); i > 1; --i)
    std::swap(values[i - 1], values[stream.next_below(i)]);
}

}  // namespace moefy
