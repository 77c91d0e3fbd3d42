#include "cuda/price_kernels.hpp"

#include <cooperative_groups.h>

#include "cuda/cost_rows.cuh"
#include "cuda/device_code.cuh"
#include "cuda/launch.cuh"
#include "cuda/order_statistic.cuh"

namespace moefy::cuda {
namespace {

constexpr unsigned kMostThreads = 512;
/// Shared memory of a block; behind it prices [stride] and counts [stride].
struct PassMemory {
  OrderStatisticMemory statistic;
  FewValues few;
  unsigned long long over;
  unsigned long long under;
  std::int32_t least;
  std::int32_t largest;
};
static_assert(sizeof(PassMemory) % sizeof(std::int64_t) == 0);
static_assert(sizeof(PassMemory) + 2 * kMostPricedSites * sizeof(std::int32_t) <= 48 * 1024,
              "all of it fits what a block may have unasked");

/// One block's part in a run.
class BlockPasses {
 public:
  __device__ BlockPasses(const DeviceCosts& costs, const DevicePasses& passes)
      : costs_(costs),
        passes_(passes),
        memory_(*block_memory<PassMemory>()),
        prices_(reinterpret_cast<std::int32_t*>(&memory_ + 1)),
        count_(reinterpret_cast<unsigned*>(prices_ + costs.stride)) {
    memory_.statistic.clear();
  }

  __device__ void take_prices(const std::int32_t* from) {
    for (std::size_t j = threadIdx.x; j < costs_.stride; j += blockDim.x) {
      prices_[j] = j < costs_.num_sites ? from[j] : kNoSite;
    }
    __syncthreads();
  }
  /// By the first block alone.
  __device__ void give_prices(std::int32_t* to) const {
    if (blockIdx.x != 0) return;
    for (std::size_t j = threadIdx.x; j < costs_.num_sites; j += blockDim.x) to[j] = prices_[j];
  }

  /// Sites of this block's rows; adds to half `half` of the counts.
  template <unsigned kLanes>
  __device__ void choose(unsigned half) {
    for (std::size_t j = threadIdx.x; j < costs_.stride; j += blockDim.x) count_[j] = 0;
    __syncthreads();
    choose_sites<kLanes>(costs_, prices_, passes_.choice, count_);
    __syncthreads();
    for (std::size_t j = threadIdx.x; j < costs_.num_sites; j += blockDim.x) {
      if (count_[j] > 0) atomicAdd(counts(half) + j, count_[j]);
    }
  }

  /// By the first block alone: prepares half `half` of the counts.
  __device__ void clear_counts(unsigned half) const {
    if (blockIdx.x != 0) return;
    for (std::size_t j = threadIdx.x; j < costs_.num_sites; j += blockDim.x) counts(half)[j] = 0;
  }

  __device__ std::int64_t imbalance(unsigned half) {
    if (threadIdx.x == 0) memory_.over = memory_.under = 0;
    __syncthreads();
    std::int64_t over = 0;
    std::int64_t under = 0;
    for (std::size_t j = threadIdx.x; j < costs_.num_sites; j += blockDim.x) {
      const std::int64_t count = counts(half)[j];
      if (count > passes_.upper[j]) over += count - passes_.upper[j];
      if (count < passes_.lower[j]) under += passes_.lower[j] - count;
    }
    add_of_warp(&memory_.over, over);
    add_of_warp(&memory_.under, under);
    __syncthreads();
    const auto result =
        static_cast<std::int64_t>(memory_.over > memory_.under ? memory_.over : memory_.under);
    __syncthreads();
    return result;
  }

  /// Changes of the prices of this block's sites.
  __device__ void find_changes(unsigned half, double damping) {
    for (std::size_t j = blockIdx.x; j < costs_.num_sites; j += gridDim.x) {
      const std::int64_t count = counts(half)[j];
      std::int32_t change = 0;
      if (count > passes_.upper[j]) {
        change = rise(j, static_cast<std::size_t>(count),
                      static_cast<double>(count - passes_.upper[j]) * damping);
      } else if (count < passes_.lower[j]) {
        change = fall(j, static_cast<double>(passes_.lower[j] - count) * damping);
      }
      if (threadIdx.x == 0) passes_.change[j] = change;
    }
  }

  /// Every block does the same.
  __device__ void apply_changes() {
    if (threadIdx.x == 0) {
      memory_.least = std::numeric_limits<std::int32_t>::max();
      memory_.largest = std::numeric_limits<std::int32_t>::min();
    }
    __syncthreads();
    for (std::size_t j = threadIdx.x; j < costs_.num_sites; j += blockDim.x) {
      prices_[j] += passes_.change[j];
      atomicMin(&memory_.least, prices_[j]);
      atomicMax(&memory_.largest, prices_[j]);
    }
    __syncthreads();
    const std::int32_t shift =
        passes_.equal_bounds ? memory_.least : clamp(0, memory_.least, memory_.largest);
    for (std::size_t j = threadIdx.x; j < costs_.num_sites; j += blockDim.x) {
      prices_[j] = clamp(prices_[j] - shift, -kMaxCost, kMaxCost);
    }
    __syncthreads();
  }

 private:
  __device__ static std::int32_t clamp(std::int32_t value, std::int32_t least,
                                       std::int32_t largest) {
    return value < least ? least : (value > largest ? largest : value);
  }
  /// In shared memory a 64-bit sum is a loop that tries until it is alone: once a warp is enough.
  __device__ static void add_of_warp(unsigned long long* sum, std::int64_t value) {
    value = warp_sum(value);
    if (lane_index() == 0 && value != 0) atomicAdd(sum, static_cast<unsigned long long>(value));
  }
  __device__ unsigned* counts(unsigned half) const {
    return passes_.choice.count + half * costs_.num_sites;
  }

  /// The margin of this rank among the rows of site j, of which there are `count`.
  __device__ std::int32_t rise(std::size_t j, std::size_t count, double rank) {
    const std::int32_t margin =
        order_statistic_of_few(
            costs_.num_rows, count, static_cast<unsigned>(rank), memory_.statistic, memory_.few,
            [&](std::size_t i) {
              const std::int32_t value = passes_.choice.margin[i];  // does not wait for the label
              const bool own = passes_.choice.label[i] == static_cast<std::int32_t>(j);
              return own ? value : -1;
            })
            .value;
    return margin < kMaxCost ? margin : kMaxCost;
  }

  /// Minus the distance from site j at which so many rows of other sites lie, judged by a sample.
  __device__ std::int32_t fall(std::size_t j, double missing) {
    const std::size_t step = passes_.sample_step;
    const std::size_t wanted = static_cast<std::size_t>(missing) / step;
    if (step > 1 && wanted < 2) return 0;  // too few samples to tell
    const std::size_t num_samples = (costs_.num_rows + step - 1) / step;
    const auto rank = static_cast<unsigned>(wanted > 1 ? wanted - 1 : 0);
    const std::int32_t price = prices_[j];
    const std::int32_t distance =
        order_statistic_of_few(
            num_samples, num_samples, rank, memory_.statistic, memory_.few,
            [&](std::size_t a) {
              const std::size_t i = a * step;
              const std::int32_t value = costs_.q[i * costs_.stride + j] - passes_.choice.best[i];
              const bool own = passes_.choice.label[i] == static_cast<std::int32_t>(j);
              return own ? -1 : value + price;
            })
            .value;
    return distance < 0 ? 0 : -distance;
  }

  const DeviceCosts& costs_;
  const DevicePasses& passes_;
  PassMemory& memory_;
  std::int32_t* prices_;  // [stride], shared memory
  unsigned* count_;       // [stride], shared memory
};

/// Goes through the passes exactly as PricePasses::run does.
template <unsigned kLanes>
__global__ void __launch_bounds__(kMostThreads)
    price_passes_kernel(DeviceCosts costs, DevicePasses passes, PassLimits limits) {
  const auto grid = cooperative_groups::this_grid();
  BlockPasses block(costs, passes);
  unsigned half = 0;  // of the counts, which are in use
  block.take_prices(passes.prices);
  block.give_prices(passes.best_prices);
  block.template choose<kLanes>(half);
  grid.sync();
  std::int64_t now = block.imbalance(half);
  PassOutcome outcome{now, now, 0, 0};
  bool at_best = true;
  while (outcome.passes < limits.max_passes && now > limits.target) {
    block.find_changes(half, limits.damping);
    block.clear_counts(1 - half);  // nobody has looked at them since the last wait
    grid.sync();
    half = 1 - half;
    block.apply_changes();
    block.template choose<kLanes>(half);
    grid.sync();
    ++outcome.passes;
    const std::int64_t before = now;
    now = block.imbalance(half);
    at_best = now < outcome.imbalance;
    if (at_best) {
      outcome.imbalance = now;
      block.give_prices(passes.best_prices);
    }
    if (before - now < limits.min_gain) break;
  }
  if (!at_best) {
    half = 1 - half;
    block.clear_counts(half);
    grid.sync();
    block.take_prices(passes.best_prices);
    block.template choose<kLanes>(half);
  }
  block.give_prices(passes.prices);
  outcome.last_count = half;
  if (blockIdx.x == 0 && threadIdx.x == 0) *passes.outcome = outcome;
}

}  // namespace

void price_passes(const DeviceCosts& costs, const DevicePasses& passes, const PassLimits& limits,
                  cudaStream_t stream) {
  const unsigned threads =
      std::min(kMostThreads, device_attribute(cudaDevAttrMaxThreadsPerMultiProcessor));
  const std::size_t shared_bytes =
      sizeof(PassMemory) + costs.stride * (sizeof(std::int32_t) + sizeof(unsigned));
  with_lanes_for(costs.stride, [&](auto lanes) {
    const std::size_t rows_a_block = threads / lanes;
    const std::size_t blocks =
        std::max((costs.num_rows + rows_a_block - 1) / rows_a_block, costs.num_sites);
    launch_resident(price_passes_kernel<lanes>, blocks, threads, shared_bytes, stream, costs,
                    passes, limits);
  });
}

}  // namespace moefy::cuda
