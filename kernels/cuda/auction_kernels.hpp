#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#include "cuda/assignment_kernels.hpp"
#include "moefy/backend/auction.hpp"

namespace moefy::cuda {

/// A row and what it bids, in arrays of one place a row.
struct DeviceBids {
  std::int32_t* row = nullptr;    ///< [num_rows]
  std::int32_t* value = nullptr;  ///< [num_rows]
};

/// Device memory of one phase; all but first_place and prices is scratch that needs no start value.
struct DeviceAuction {
  const std::int32_t* first_place = nullptr;  ///< [num_sites + 1] Σ of the sizes before each site
  std::int32_t* prices = nullptr;             ///< [stride], padding kNoSite: fitted; then the last
  std::int32_t* waiting[2] = {};              ///< [num_rows] rows without a site, by turns
  std::int32_t* site = nullptr;               ///< [num_rows] that waiting rows bid for …
  std::int32_t* bid = nullptr;                ///< [num_rows] … and what
  std::int32_t* num_new = nullptr;            ///< [num_sites] bids of this round
  std::int32_t* num_kept = nullptr;           ///< [num_sites]
  DeviceBids kept;                            ///< site j's from first_place[j] on
  DeviceBids rivals;                          ///< old and new bids of a site, while it chooses
  std::int32_t* num_waiting = nullptr;        ///< [2]
  std::int32_t* num_rivals = nullptr;         ///< of all sites so far in this round
  AuctionResult* result = nullptr;
};

/// A phase of the auction as moefy::AuctionPhase defines it, in one launch without a word to the
/// host. Every block counts for itself and decides by itself whether to go on; blocks share the
/// waiting rows while bids are found, and the sites while these choose, and wait for each other
/// twice a round. costs.num_rows >= 1, costs.num_sites <= kMostPricedSites.
void auction_phase(const DeviceCosts& costs, const DeviceAuction& auction,
                   const AuctionLimits& limits, cudaStream_t stream);

}  // namespace moefy::cuda
