#include "cuda/assignment_kernels.hpp"

#include <limits>

#include "cuda/device_code.cuh"
#include "cuda/launch.cuh"
#include "moefy/backend/backend.hpp"

namespace moefy::cuda {
namespace {

constexpr unsigned kBlock = 128;

/// One warp a row.
dim3 grid_for(std::size_t num_rows) { return strided_grid(num_rows, kBlock / kWarp, kBlock); }

/// The best site, as value << 32 | site, so that the lower site wins a tie, and the second value.
struct BestTwo {
  std::int64_t best;
  std::int32_t second;
};

__device__ BestTwo merge(const BestTwo& a, const BestTwo& b) {
  const BestTwo& winner = b.best < a.best ? b : a;
  const auto loser = static_cast<std::int32_t>((b.best < a.best ? a : b).best >> 32);
  return {winner.best, loser < winner.second ? loser : winner.second};
}

__global__ void best_sites_kernel(DeviceCosts costs, const std::int32_t* prices,
                                  DeviceChoice choice) {
  for (std::size_t i = warp_index(); i < costs.num_rows; i += num_warps()) {
    const std::int32_t* const row = costs.q + i * costs.stride;
    BestTwo found{std::numeric_limits<std::int64_t>::max(), kNoSite};
    for (std::size_t j = lane_index(); j < costs.num_sites; j += kWarp) {
      const std::int64_t value = row[j] + prices[j];
      found = merge(found, {value << 32 | static_cast<std::int64_t>(j), kNoSite});
    }
    for (int half = kWarp / 2; half > 0; half /= 2) {
      found = merge(found, {__shfl_xor_sync(kAllLanes, found.best, half),
                            __shfl_xor_sync(kAllLanes, found.second, half)});
    }
    if (lane_index() != 0) continue;
    const auto best = static_cast<std::int32_t>(found.best >> 32);
    const auto site = static_cast<std::int32_t>(found.best & 0xffffffff);
    choice.label[i] = site;
    atomicAdd(choice.count + site, 1ULL);
    if (choice.best != nullptr) choice.best[i] = best;
    if (choice.margin != nullptr) choice.margin[i] = found.second - best;
  }
}

__global__ void smallest_moves_kernel(DeviceCosts costs, const std::int32_t* label,
                                      unsigned long long* least) {
  for (std::size_t i = warp_index(); i < costs.num_rows; i += num_warps()) {
    const std::int32_t* const row = costs.q + i * costs.stride;
    const auto u = static_cast<std::size_t>(label[i]);
    const std::int64_t own = row[u];
    unsigned long long* const table = least + u * costs.stride;
    for (std::size_t v = lane_index(); v < costs.num_sites; v += kWarp) {
      const auto move = static_cast<unsigned long long>(row[v] - own + kMoveOffset);
      const unsigned long long key = move << 32 | i;
      // Most rows do not lower the minimum; a look is much cheaper than an atomic.
      if (key < __ldcg(table + v)) atomicMin(table + v, key);
    }
  }
}

__device__ void add(unsigned long long* sum, std::int64_t value) {
  atomicAdd(sum, static_cast<unsigned long long>(value));
}

__global__ void certificate_kernel(DeviceCosts costs, const std::int32_t* label,
                                   const std::int32_t* prices, DeviceCertificate* sums) {
  std::int64_t cost = 0;
  std::int64_t row_minima = 0;
  std::int64_t unconstrained = 0;
  for (std::size_t i = warp_index(); i < costs.num_rows; i += num_warps()) {
    const std::int32_t* const row = costs.q + i * costs.stride;
    std::int64_t cheapest = std::numeric_limits<std::int64_t>::max();
    std::int64_t priced = std::numeric_limits<std::int64_t>::max();
    for (std::size_t j = lane_index(); j < costs.num_sites; j += kWarp) {
      const std::int64_t value = row[j];
      cheapest = value < cheapest ? value : cheapest;
      priced = value + prices[j] < priced ? value + prices[j] : priced;
    }
    cheapest = warp_min(cheapest);
    priced = warp_min(priced);
    const auto site = static_cast<std::size_t>(label[i]);
    const std::int64_t violation = std::int64_t{row[site]} + prices[site] - priced;
    if (lane_index() == 0 && violation > 0) {
      atomicMax(&sums->worst, static_cast<unsigned long long>(violation) << 32 |
                                  (0xffffffffULL - static_cast<unsigned long long>(i)));
    }
    cost += row[site];
    row_minima += priced;
    unconstrained += cheapest;
  }
  if (lane_index() == 0) {
    add(&sums->cost, cost);
    add(&sums->row_minima, row_minima);
    add(&sums->unconstrained, unconstrained);
  }
}

}  // namespace

void best_sites(const DeviceCosts& costs, const std::int32_t* prices, const DeviceChoice& choice,
                cudaStream_t stream) {
  launch(best_sites_kernel, grid_for(costs.num_rows), kBlock, 0, stream, costs, prices, choice);
}

void smallest_moves(const DeviceCosts& costs, const std::int32_t* label, unsigned long long* least,
                    cudaStream_t stream) {
  launch(smallest_moves_kernel, grid_for(costs.num_rows), kBlock, 0, stream, costs, label, least);
}

void certificate_sums(const DeviceCosts& costs, const std::int32_t* label,
                      const std::int32_t* prices, DeviceCertificate* sums, cudaStream_t stream) {
  launch(certificate_kernel, grid_for(costs.num_rows), kBlock, 0, stream, costs, label, prices,
         sums);
}

}  // namespace moefy::cuda
