#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

namespace moefy {

/// What a random stream is used for: the first counter word, so that streams never overlap.
enum class RandomPurpose : std::uint32_t {
  initial_rows = 1,
  random_split = 2,
  verification = 3,
  bench = 4,
  random_router = 5,
  router_training = 6,
  router_metrics = 7,
  random_prune = 8
};

/// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
/// `counter` and `key` in, four independent uniform words out.
std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> counter,
                                        std::array<std::uint32_t, 2> key);

/// A random stream keyed by (seed, layer) with counter (purpose, restart, i): its values depend on
/// nothing else, so every rank and thread draws the same.
class RandomStream {
 public:
  RandomStream(std::uint64_t seed, std::uint64_t layer, RandomPurpose purpose,
               std::uint32_t restart = 0);

  std::uint32_t next_word();
  /// Uniform in [0, bound), unbiased; bound >= 1.
  std::uint64_t next_below(std::uint64_t bound);
  /// Uniform in [0, 1) with 53 bits.
  double next_unit();
  /// Standard normal (Box-Muller on two units).
  float next_normal();

 private:
  std::array<std::uint32_t, 2> key_;
  std::uint32_t purpose_;
  std::uint32_t restart_;
  std::uint64_t block_ = 0;
  std::array<std::uint32_t, 4> words_{};
  unsigned used_ = 4;
};

/// In-place Fisher-Yates from the last position down, unbiased bounded draws.
void shuffle(std::span<std::int32_t> values, RandomStream& stream);

}  // namespace moefy
