#include "cuda/auction_kernels.hpp"

#include <cooperative_groups.h>

#include "cuda/cost_rows.cuh"
#include "cuda/device_code.cuh"
#include "cuda/launch.cuh"
#include "cuda/order_statistic.cuh"

namespace moefy::cuda {
namespace {

constexpr unsigned kMostThreads = 512;
constexpr std::int32_t kLastRow = std::numeric_limits<std::int32_t>::max();

/// Shared memory of a block; behind it prices [stride].
struct AuctionMemory {
  OrderStatisticMemory statistic;
  std::int32_t first_rival;
  std::int32_t num_gathered;
  std::int32_t num_kept;
};

/// The bids that a site keeps: those above `value`, and those of it up to this row.
struct KeptBids {
  std::int32_t value = 0;  // below any bid
  std::int32_t last_row = kLastRow;
  __device__ bool include(std::int32_t bid, std::int32_t row) const {
    return bid > value || (bid == value && row <= last_row);
  }
};

/// One block's part in a phase.
class BlockAuction {
 public:
  __device__ BlockAuction(const DeviceCosts& costs, const DeviceAuction& auction)
      : costs_(costs),
        auction_(auction),
        memory_(*block_memory<AuctionMemory>()),
        prices_(reinterpret_cast<std::int32_t*>(&memory_ + 1)) {
    memory_.statistic.clear();
    __syncthreads();
  }

  /// Before the first round, and a wait: all rows wait, in the first list.
  __device__ void begin() const {
    const std::size_t first = std::size_t{blockIdx.x} * blockDim.x + threadIdx.x;
    const std::size_t step = std::size_t{gridDim.x} * blockDim.x;
    for (std::size_t i = first; i < costs_.num_rows; i += step) {
      auction_.waiting[0][i] = static_cast<std::int32_t>(i);
    }
    for (std::size_t j = first; j < costs_.num_sites; j += step) {
      auction_.num_new[j] = auction_.num_kept[j] = 0;
    }
  }

  /// Bids of this block's share of the waiting rows; prepares the other list.
  template <unsigned kLanes>
  __device__ void bid(unsigned turn, std::size_t num_waiting, std::int32_t epsilon) {
    if (blockIdx.x == 0 && threadIdx.x == 0) {
      auction_.num_waiting[1 - turn] = 0;
      *auction_.num_rivals = 0;
    }
    const std::size_t first = std::size_t{blockIdx.x} * blockDim.x / kLanes;
    if (first >= num_waiting) return;  // the same for the whole block
    for (std::size_t j = threadIdx.x; j < costs_.stride; j += blockDim.x) {
      prices_[j] = auction_.prices[j];
    }
    __syncthreads();
    for_each_row<kLanes>(num_waiting, [&](std::size_t u, bool there, unsigned lane) {
      const auto i = static_cast<std::size_t>(auction_.waiting[turn][u]);
      const BestTwo found = best_two<kLanes>(costs_, i, lane, prices_);
      if (!there || lane != 0) return;
      auction_.site[u] = found.site;
      auction_.bid[u] = prices_[found.site] + (found.second - found.best) + epsilon;
      atomicAdd(auction_.num_new + found.site, 1);
    });
  }

  /// This block's sites choose among their bids.
  __device__ void settle(unsigned turn, std::size_t num_waiting) {
    for (std::size_t j = blockIdx.x; j < costs_.num_sites; j += gridDim.x) {
      if (auction_.num_new[j] > 0) choose(j, turn, num_waiting);
    }
  }

 private:
  __device__ void choose(std::size_t j, unsigned turn, std::size_t num_waiting) {
    const std::int32_t num_kept = auction_.num_kept[j];
    const std::int32_t num_rivals = num_kept + auction_.num_new[j];
    const std::int32_t first_place = auction_.first_place[j];
    const std::int32_t num_places = auction_.first_place[j + 1] - first_place;
    if (threadIdx.x == 0) {
      memory_.first_rival = atomicAdd(auction_.num_rivals, num_rivals);
      memory_.num_gathered = num_kept;
      memory_.num_kept = 0;
    }
    __syncthreads();
    const DeviceBids kept{auction_.kept.row + first_place, auction_.kept.value + first_place};
    const DeviceBids rivals{auction_.rivals.row + memory_.first_rival,
                            auction_.rivals.value + memory_.first_rival};
    gather(j, turn, num_waiting, kept, num_kept, rivals);
    __syncthreads();
    KeptBids best;
    if (num_rivals >= num_places) {
      best = kept_bids(rivals, static_cast<std::size_t>(num_rivals),
                       static_cast<unsigned>(num_rivals - num_places));
    }
    for (auto a = static_cast<std::int32_t>(threadIdx.x); a < num_rivals;
         a += static_cast<std::int32_t>(blockDim.x)) {
      if (best.include(rivals.value[a], rivals.row[a])) {
        const std::int32_t place = atomicAdd(&memory_.num_kept, 1);
        kept.row[place] = rivals.row[a];
        kept.value[place] = rivals.value[a];
      } else {
        auction_.waiting[1 - turn][atomicAdd(auction_.num_waiting + (1 - turn), 1)] = rivals.row[a];
      }
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      auction_.num_kept[j] = memory_.num_kept;
      auction_.num_new[j] = 0;
      if (num_rivals >= num_places) auction_.prices[j] = best.value;
    }
    __syncthreads();
  }

  /// Puts the bids that site j has and those that it got together.
  __device__ void gather(std::size_t j, unsigned turn, std::size_t num_waiting,
                         const DeviceBids& kept, std::int32_t num_kept, const DeviceBids& rivals) {
    for (auto a = static_cast<std::int32_t>(threadIdx.x); a < num_kept;
         a += static_cast<std::int32_t>(blockDim.x)) {
      rivals.row[a] = kept.row[a];
      rivals.value[a] = kept.value[a];
    }
    for (std::size_t u = threadIdx.x; u < num_waiting; u += blockDim.x) {
      if (auction_.site[u] != static_cast<std::int32_t>(j)) continue;
      const std::int32_t a = atomicAdd(&memory_.num_gathered, 1);
      rivals.row[a] = auction_.waiting[turn][u];
      rivals.value[a] = auction_.bid[u];
    }
  }

  /// What is left without the lowest `num_lost` bids.
  __device__ KeptBids kept_bids(const DeviceBids& rivals, std::size_t count, unsigned num_lost) {
    KeptBids best;
    const OrderStatistic lowest = order_statistic(count, num_lost, memory_.statistic,
                                                  [&](std::size_t a) { return rivals.value[a]; });
    best.value = lowest.value;
    // Of those that bid the same, the last rows lose.
    if (lowest.rank_of_equal > 0) {
      const OrderStatistic last =
          order_statistic(count, lowest.rank_of_equal, memory_.statistic, [&](std::size_t a) {
            return rivals.value[a] == lowest.value ? kLastRow - rivals.row[a] : -1;
          });
      best.last_row = kLastRow - last.value;
    }
    return best;
  }

  const DeviceCosts& costs_;
  const DeviceAuction& auction_;
  AuctionMemory& memory_;
  std::int32_t* prices_;  // [stride], shared memory
};

template <unsigned kLanes>
__global__ void __launch_bounds__(kMostThreads)
    auction_kernel(DeviceCosts costs, DeviceAuction auction, AuctionLimits limits) {
  const auto grid = cooperative_groups::this_grid();
  BlockAuction block(costs, auction);
  block.begin();
  grid.sync();
  AuctionResult result;
  result.unassigned = static_cast<std::int64_t>(costs.num_rows);
  unsigned turn = 0;  // of the lists, which is in use
  while (result.unassigned > limits.enough && result.rounds < limits.max_rounds &&
         result.bids < limits.max_bids) {
    ++result.rounds;
    result.bids += result.unassigned;
    const auto num_waiting = static_cast<std::size_t>(result.unassigned);
    block.template bid<kLanes>(turn, num_waiting, limits.epsilon);
    grid.sync();
    block.settle(turn, num_waiting);
    grid.sync();
    turn = 1 - turn;
    result.unassigned = auction.num_waiting[turn];
  }
  if (blockIdx.x == 0 && threadIdx.x == 0) *auction.result = result;
}

}  // namespace

void auction_phase(const DeviceCosts& costs, const DeviceAuction& auction,
                   const AuctionLimits& limits, cudaStream_t stream) {
  const unsigned threads =
      std::min(kMostThreads, device_attribute(cudaDevAttrMaxThreadsPerMultiProcessor));
  const std::size_t shared_bytes = sizeof(AuctionMemory) + costs.stride * sizeof(std::int32_t);
  with_lanes_for(costs.stride, [&](auto lanes) {
    const std::size_t rows_a_block = threads / lanes;
    const std::size_t blocks =
        std::max((costs.num_rows + rows_a_block - 1) / rows_a_block, costs.num_sites);
    launch_resident(auction_kernel<lanes>, blocks, threads, shared_bytes, stream, costs, auction,
                    limits);
  });
}

}  // namespace moefy::cuda
