#pragma once

#include "cuda/device_code.cuh"

/// Order statistics by a whole block, exact and without sorting.
namespace moefy::cuda {

/// Order statistics are found digit by digit, from the top: four digits of eight bits.
constexpr unsigned kDigitBits = 8;
constexpr unsigned kDigits = 1U << kDigitBits;

/// Where an order statistic goes on: a digit, and the rank among the values that have it.
struct FoundDigit {
  unsigned digit;  ///< kDigits: there are no values
  unsigned rank;
};

/// Shared memory of a block.
struct OrderStatisticMemory {
  unsigned digits[kDigits];  ///< how many values have each; 0 while no statistic is looked for
  FoundDigit found[2];       ///< by turns, so that one barrier is enough

  /// Before the first one, and before a barrier.
  __device__ void clear() {
    for (unsigned d = threadIdx.x; d < kDigits; d += blockDim.x) digits[d] = 0;
  }
};

/// Finds the digit in which this rank lies (beyond the last value: that of the last one), and
/// leaves the digits at 0. One warp.
__device__ inline void find_digit(unsigned rank, unsigned* digits, FoundDigit& found) {
  constexpr unsigned kOwn = kDigits / kWarp;
  const unsigned first = lane_index() * kOwn;
  unsigned own = 0;
  for (unsigned d = 0; d < kOwn; ++d) own += digits[first + d];
  unsigned up_to = own;
  for (unsigned step = 1; step < kWarp; step *= 2) {
    const unsigned below = __shfl_up_sync(kAllLanes, up_to, step);
    if (lane_index() >= step) up_to += below;
  }
  const unsigned total = __shfl_sync(kAllLanes, up_to, kWarp - 1);
  if (total == 0) {
    if (lane_index() == 0) found = {kDigits, 0};
    return;
  }
  const unsigned wanted = rank < total ? rank : total - 1;
  unsigned before = up_to - own;
  const bool is_here = wanted >= before && wanted < up_to;
  for (unsigned d = first; d < first + kOwn; ++d) {
    const unsigned here = digits[d];
    digits[d] = 0;
    if (is_here && wanted >= before && wanted < before + here) found = {d, wanted - before};
    before += here;
  }
}

struct OrderStatistic {
  std::int32_t value;      ///< -1: there are no values
  unsigned rank_of_equal;  ///< among the values that are equal to it
};

/// Values that a thread asks for before it uses the first of them.
constexpr unsigned kValuesAtOnce = 8;

/// visit(value) for the non-negative ones of value_of(0), …, value_of(count - 1) that fall to this
/// thread.
template <class ValueOf, class Visit>
__device__ void for_each_value(std::size_t count, const ValueOf& value_of, const Visit& visit) {
  for (std::size_t first = threadIdx.x; first < count; first += kValuesAtOnce * blockDim.x) {
    std::int32_t value[kValuesAtOnce];
#pragma unroll
    for (unsigned v = 0; v < kValuesAtOnce; ++v) {
      // The first one again beyond the last: loads wait for no branch.
      const std::size_t a = first + v * blockDim.x;
      const std::int32_t found = value_of(a < count ? a : first);
      value[v] = a < count ? found : -1;
    }
#pragma unroll
    for (unsigned v = 0; v < kValuesAtOnce; ++v) {
      if (value[v] >= 0) visit(value[v]);
    }
  }
}

/// The value of this rank (from 0; beyond the last: the last) among the non-negative ones of
/// value_of(0), …, value_of(count - 1). All threads of the block.
template <class ValueOf>
__device__ OrderStatistic order_statistic(std::size_t count, unsigned rank,
                                          OrderStatisticMemory& memory, const ValueOf& value_of) {
  std::uint32_t known = 0;  // the digits found so far
  for (unsigned shift = 32; shift > 0;) {
    shift -= kDigitBits;
    for_each_value(count, value_of, [&](std::int32_t value) {
      const auto bits = static_cast<std::uint64_t>(value);
      if (bits >> (shift + kDigitBits) == known) {
        atomicAdd(memory.digits + (bits >> shift & (kDigits - 1)), 1U);
      }
    });
    __syncthreads();
    FoundDigit& found = memory.found[shift / kDigitBits % 2];
    if (threadIdx.x < kWarp) find_digit(rank, memory.digits, found);
    __syncthreads();
    if (found.digit == kDigits) return {-1, 0};
    known = known << kDigitBits | found.digit;
    rank = found.rank;
  }
  return {static_cast<std::int32_t>(known), rank};
}

/// Shared memory for few values.
struct FewValues {
  static constexpr unsigned kMost = 3072;
  std::int32_t value[kMost];
  unsigned count;
};

/// The same where at most `most` of the values are non-negative: if so few fit the memory of the
/// block, value_of is asked once for each, and not once a digit.
template <class ValueOf>
__device__ OrderStatistic order_statistic_of_few(std::size_t count, std::size_t most, unsigned rank,
                                                 OrderStatisticMemory& memory, FewValues& few,
                                                 const ValueOf& value_of) {
  if (most > FewValues::kMost) return order_statistic(count, rank, memory, value_of);
  if (threadIdx.x == 0) few.count = 0;
  __syncthreads();
  for_each_value(count, value_of,
                 [&](std::int32_t value) { few.value[atomicAdd(&few.count, 1U)] = value; });
  __syncthreads();
  return order_statistic(few.count, rank, memory, [&](std::size_t a) { return few.value[a]; });
}

}  // namespace moefy::cuda
