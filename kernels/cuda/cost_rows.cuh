#pragma once

#include <limits>

#include "cuda/assignment_kernels.hpp"
#include "cuda/device_code.cuh"
#include "moefy/backend/backend.hpp"

/// How kernels read rows of costs: kLanes neighbouring lanes of a warp share one, four columns at a
/// time, so that rows of 16 costs keep a warp as busy as rows of 128. Padding columns are read
/// along: their costs are 0 and their prices kNoSite.
namespace moefy::cuda {

/// Columns that a lane loads at once.
inline constexpr unsigned kColumns = 4;

/// visit(i, there, lane) for every row of this thread. All lanes of a warp stay together; where
/// `there` is false row i is a valid one that others look after.
template <unsigned kLanes, class Visit>
__device__ void for_each_row(std::size_t num_rows, const Visit& visit) {
  constexpr std::size_t kRows = kWarp / kLanes;
  for (std::size_t first = warp_index() * kRows; first < num_rows; first += num_warps() * kRows) {
    const std::size_t i = first + lane_index() / kLanes;
    const bool there = i < num_rows;
    visit(there ? i : num_rows - 1, there, lane_index() % kLanes);
  }
}

/// visit(j, cost) for the columns of a row that belong to this lane.
template <unsigned kLanes, class Visit>
__device__ void for_each_cost(const DeviceCosts& costs, std::size_t i, unsigned lane,
                              const Visit& visit) {
  const std::int32_t* const row = costs.q + i * costs.stride;
  for (std::size_t j = kColumns * lane; j < costs.stride; j += kColumns * kLanes) {
    const int4 four = *reinterpret_cast<const int4*>(row + j);
    visit(j, four.x);
    visit(j + 1, four.y);
    visit(j + 2, four.z);
    visit(j + 3, four.w);
  }
}

/// The best site of a row under prices, and the second value.
struct BestTwo {
  std::int32_t best = std::numeric_limits<std::int32_t>::max();
  std::int32_t site = std::numeric_limits<std::int32_t>::max();
  std::int32_t second = kNoSite;

  __device__ void add(std::int32_t value, std::int32_t at) {
    if (value < best) {
      second = best < second ? best : second;
      best = value;
      site = at;
    } else if (value < second) {
      second = value;
    }
  }
  /// The lower site wins a tie.
  __device__ void merge(const BestTwo& other) {
    const bool wins = other.best < best || (other.best == best && other.site < site);
    const std::int32_t loser = wins ? best : other.best;
    const std::int32_t least = other.second < second ? other.second : second;
    second = loser < least ? loser : least;
    best = wins ? other.best : best;
    site = wins ? other.site : site;
  }
};

/// The same on all lanes of the row.
template <unsigned kLanes>
__device__ BestTwo best_two(const DeviceCosts& costs, std::size_t i, unsigned lane,
                            const std::int32_t* prices) {
  BestTwo found;
  for_each_cost<kLanes>(costs, i, lane, [&](std::size_t j, std::int32_t cost) {
    found.add(cost + prices[j], static_cast<std::int32_t>(j));
  });
  for (int half = kLanes / 2; half > 0; half /= 2) {
    found.merge({__shfl_xor_sync(kAllLanes, found.best, half),
                 __shfl_xor_sync(kAllLanes, found.site, half),
                 __shfl_xor_sync(kAllLanes, found.second, half)});
  }
  return found;
}

/// Best sites of this thread's rows; counts are added to `count`, in any memory.
template <unsigned kLanes>
__device__ void choose_sites(const DeviceCosts& costs, const std::int32_t* prices,
                             const DeviceChoice& choice, unsigned* count) {
  for_each_row<kLanes>(costs.num_rows, [&](std::size_t i, bool there, unsigned lane) {
    const BestTwo found = best_two<kLanes>(costs, i, lane, prices);
    if (!there || lane != 0) return;
    choice.label[i] = found.site;
    atomicAdd(count + found.site, 1U);
    if (choice.best != nullptr) choice.best[i] = found.best;
    if (choice.margin != nullptr) choice.margin[i] = found.second - found.best;
  });
}

/// launcher(std::integral_constant<unsigned, lanes>) with the lanes that suit a row.
template <class Launcher>
void with_lanes_for(std::size_t stride, const Launcher& launcher) {
  if (stride <= 16) {
    launcher(std::integral_constant<unsigned, 4>{});
  } else if (stride <= 32) {
    launcher(std::integral_constant<unsigned, 8>{});
  } else if (stride <= 64) {
    launcher(std::integral_constant<unsigned, 16>{});
  } else {
    launcher(std::integral_constant<unsigned, kWarp>{});
  }
}

}  // namespace moefy::cuda
