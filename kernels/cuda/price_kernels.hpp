#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#include "cuda/assignment_kernels.hpp"
#include "moefy/backend/price_passes.hpp"

namespace moefy::cuda {

/// What a run of price passes found out.
struct PassOutcome {
  std::int64_t imbalance_before;
  std::int64_t imbalance;
  std::int64_t passes;
  std::int64_t last_count;  ///< which half of the counts belongs to the labels
};

/// Device memory of one run.
struct DevicePasses {
  const std::int64_t* lower = nullptr;  ///< [num_sites]
  const std::int64_t* upper = nullptr;  ///< [num_sites]
  bool equal_bounds = true;
  std::size_t sample_step = 1;          ///< moefy::pass_sample_step
  std::int32_t* prices = nullptr;       ///< [stride], padding kNoSite: the start, then the best
  std::int32_t* best_prices = nullptr;  ///< [num_sites], scratch
  std::int32_t* change = nullptr;       ///< [num_sites], scratch
  DeviceChoice choice;                  ///< all of it; count [2, num_sites] starts at 0
  PassOutcome* outcome = nullptr;
};

/// More sites than this do not fit the memory of a block.
inline constexpr std::size_t kMostPricedSites = 4096;

/// Price passes as moefy::PricePasses defines them, in one launch without a word to the host. Every
/// block keeps all prices and decides by itself, from the same counts, whether to go on; blocks
/// share the rows while sites are chosen, and the sites while order statistics are found, and wait
/// for each other twice a pass. costs.num_rows >= 1, costs.num_sites <= kMostPricedSites.
void price_passes(const DeviceCosts& costs, const DevicePasses& passes, const PassLimits& limits,
                  cudaStream_t stream);

}  // namespace moefy::cuda
