#include "cuda/assignment_kernels.hpp"

#include <limits>

#include "cuda/cost_rows.cuh"
#include "cuda/device_code.cuh"
#include "cuda/launch.cuh"

namespace moefy::cuda {
namespace {

constexpr unsigned kBlock = 128;
constexpr unsigned kWarps = kBlock / kWarp;

/// Rows of kLanes lanes each.
dim3 grid_for(std::size_t num_rows, unsigned lanes) {
  return strided_grid(num_rows, kBlock / lanes, kBlock);
}

/// Counts of more sites than this are added up in device memory at once.
constexpr std::size_t kMostSharedCounts = 4096;

template <unsigned kLanes>
__global__ void best_sites_kernel(DeviceCosts costs, const std::int32_t* prices,
                                  DeviceChoice choice, bool shared_counts) {
  if (!shared_counts) {
    choose_sites<kLanes>(costs, prices, choice, choice.count);
    return;
  }
  auto* const count = block_memory<unsigned>();
  for (std::size_t j = threadIdx.x; j < costs.stride; j += blockDim.x) count[j] = 0;
  __syncthreads();
  choose_sites<kLanes>(costs, prices, choice, count);
  __syncthreads();
  for (std::size_t j = threadIdx.x; j < costs.num_sites; j += blockDim.x) {
    if (count[j] > 0) atomicAdd(choice.count + j, count[j]);
  }
}

/// A move of row i from a site of cost `own` to one of cost `cost`: see smallest_moves().
__device__ unsigned long long packed_move(std::int32_t cost, std::int32_t own, std::size_t i) {
  const std::int64_t move = std::int64_t{cost} - own + kMoveOffset;
  return static_cast<unsigned long long>(move) << 32 | i;
}

template <unsigned kLanes>
__global__ void smallest_moves_kernel(DeviceCosts costs, const std::int32_t* label,
                                      unsigned long long* least) {
  for_each_row<kLanes>(costs.num_rows, [&](std::size_t i, bool there, unsigned lane) {
    if (!there) return;
    const auto u = static_cast<std::size_t>(label[i]);
    const std::int32_t own = costs.q[i * costs.stride + u];
    unsigned long long* const table = least + u * costs.stride;
    for_each_cost<kLanes>(costs, i, lane, [&](std::size_t v, std::int32_t cost) {
      if (v >= costs.num_sites) return;
      const unsigned long long key = packed_move(cost, own, i);
      // Most rows do not lower the minimum; a look is much cheaper than an atomic.
      if (key < __ldcg(table + v)) atomicMin(table + v, key);
    });
  });
}

/// A warp a pair of sites. Its lanes look at kOwn rows each at a time, and hold what is listed so
/// far, an entry each.
__global__ void list_moves_kernel(DeviceCosts costs, SiteRows members, unsigned length,
                                  unsigned long long* list) {
  constexpr unsigned kOwn = 8;
  constexpr unsigned long long kNoMove = ~0ULL;
  const std::size_t num_pairs = costs.num_sites * costs.num_sites;
  for (std::size_t pair = warp_index(); pair < num_pairs; pair += num_warps()) {
    const std::size_t u = pair / costs.num_sites;
    const std::size_t v = pair % costs.num_sites;
    const std::int64_t end = members.begin[u + 1];
    unsigned long long listed = kNoMove;
    for (std::int64_t first = members.begin[u]; first < end; first += kWarp * kOwn) {
      unsigned long long left[kOwn + 1];
      for (unsigned s = 0; s < kOwn; ++s) {
        const std::int64_t at = first + s * kWarp + lane_index();
        const auto i = static_cast<std::size_t>(members.rows[at < end ? at : first]);
        const std::int32_t* const own = costs.q + i * costs.stride;
        left[s] = at < end ? packed_move(own[v], own[u], i) : kNoMove;
      }
      left[kOwn] = listed;
      listed = kNoMove;
      for (unsigned t = 0; t < length; ++t) {
        unsigned long long least = left[0];
        for (unsigned s = 1; s <= kOwn; ++s) least = left[s] < least ? left[s] : least;
        least = group_min<kWarp>(least);
        if (lane_index() == t) listed = least;
        for (unsigned s = 0; s <= kOwn; ++s) left[s] = left[s] == least ? kNoMove : left[s];
      }
    }
    if (lane_index() < length) list[pair * length + lane_index()] = listed;
  }
}

/// *to[s] += Σ value[s] over the threads of a block: one atomic a block and sum.
template <unsigned kSums>
__device__ void add_of_block(const std::int64_t (&value)[kSums],
                             unsigned long long* const (&to)[kSums]) {
  auto* const of_warp = block_memory<std::int64_t>();  // [kSums, kWarps]
  for (unsigned s = 0; s < kSums; ++s) {
    const std::int64_t sum = warp_sum(value[s]);
    if (lane_index() == 0) of_warp[s * kWarps + threadIdx.x / kWarp] = sum;
  }
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (unsigned s = 0; s < kSums; ++s) {
    std::int64_t sum = 0;
    for (unsigned w = 0; w < kWarps; ++w) sum += of_warp[s * kWarps + w];
    atomicAdd(to[s], static_cast<unsigned long long>(sum));
  }
}
/// Shared memory of add_of_block.
constexpr std::size_t sum_memory(unsigned sums) { return sums * kWarps * sizeof(std::int64_t); }

template <unsigned kLanes>
__global__ void certificate_kernel(DeviceCosts costs, const std::int32_t* label,
                                   const std::int32_t* prices, DeviceCertificate* sums) {
  std::int64_t cost = 0;
  std::int64_t row_minima = 0;
  std::int64_t unconstrained = 0;
  for_each_row<kLanes>(costs.num_rows, [&](std::size_t i, bool there, unsigned lane) {
    std::int64_t cheapest = std::numeric_limits<std::int64_t>::max();
    std::int64_t priced = std::numeric_limits<std::int64_t>::max();
    for_each_cost<kLanes>(costs, i, lane, [&](std::size_t j, std::int64_t value) {
      if (j >= costs.num_sites) return;
      cheapest = value < cheapest ? value : cheapest;
      priced = value + prices[j] < priced ? value + prices[j] : priced;
    });
    cheapest = group_min<kLanes>(cheapest);
    priced = group_min<kLanes>(priced);
    if (!there || lane != 0) return;
    const auto site = static_cast<std::size_t>(label[i]);
    const std::int64_t own = costs.q[i * costs.stride + site];
    const std::int64_t violation = own + prices[site] - priced;
    if (violation > 0) {
      atomicMax(&sums->worst, static_cast<unsigned long long>(violation) << 32 |
                                  (0xffffffffULL - static_cast<unsigned long long>(i)));
    }
    cost += own;
    row_minima += priced;
    unconstrained += cheapest;
  });
  add_of_block<3>({cost, row_minima, unconstrained},
                  {&sums->cost, &sums->row_minima, &sums->unconstrained});
}

__global__ void total_cost_kernel(DeviceCosts costs, const std::int32_t* label,
                                  unsigned long long* total) {
  std::int64_t cost = 0;
  const std::size_t stride = std::size_t{gridDim.x} * blockDim.x;
  for (std::size_t i = std::size_t{blockIdx.x} * blockDim.x + threadIdx.x; i < costs.num_rows;
       i += stride) {
    cost += costs.q[i * costs.stride + static_cast<std::size_t>(label[i])];
  }
  add_of_block<1>({cost}, {total});
}

template <unsigned kLanes>
__global__ void tied_rows_kernel(DeviceCosts costs, const std::int32_t* label,
                                 const std::int32_t* prices, std::int32_t* rows,
                                 unsigned* num_tied) {
  for_each_row<kLanes>(costs.num_rows, [&](std::size_t i, bool there, unsigned lane) {
    const auto site = static_cast<std::size_t>(label[i]);
    const std::int32_t own = costs.q[i * costs.stride + site] + prices[site];
    int equal = 0;
    for_each_cost<kLanes>(costs, i, lane, [&](std::size_t j, std::int32_t cost) {
      equal += cost + prices[j] == own ? 1 : 0;
    });
    equal = group_sum<kLanes>(equal);
    if (there && lane == 0 && equal > 1) {
      rows[atomicAdd(num_tied, 1U)] = static_cast<std::int32_t>(i);
    }
  });
}

}  // namespace

void best_sites(const DeviceCosts& costs, const std::int32_t* prices, const DeviceChoice& choice,
                cudaStream_t stream) {
  const bool shared_counts = costs.stride <= kMostSharedCounts;
  const std::size_t shared_bytes = shared_counts ? costs.stride * sizeof(unsigned) : 0;
  with_lanes_for(costs.stride, [&](auto lanes) {
    launch(best_sites_kernel<lanes>, grid_for(costs.num_rows, lanes), kBlock, shared_bytes, stream,
           costs, prices, choice, shared_counts);
  });
}

void smallest_moves(const DeviceCosts& costs, const std::int32_t* label, unsigned long long* least,
                    cudaStream_t stream) {
  with_lanes_for(costs.stride, [&](auto lanes) {
    launch(smallest_moves_kernel<lanes>, grid_for(costs.num_rows, lanes), kBlock, 0, stream, costs,
           label, least);
  });
}

void list_moves(const DeviceCosts& costs, const SiteRows& members, unsigned length,
                unsigned long long* list, cudaStream_t stream) {
  launch(list_moves_kernel, strided_grid(costs.num_sites * costs.num_sites, kWarps, kBlock), kBlock,
         0, stream, costs, members, length, list);
}

void certificate_sums(const DeviceCosts& costs, const std::int32_t* label,
                      const std::int32_t* prices, DeviceCertificate* sums, cudaStream_t stream) {
  with_lanes_for(costs.stride, [&](auto lanes) {
    launch(certificate_kernel<lanes>, grid_for(costs.num_rows, lanes), kBlock, sum_memory(3),
           stream, costs, label, prices, sums);
  });
}

void total_cost(const DeviceCosts& costs, const std::int32_t* label, unsigned long long* total,
                cudaStream_t stream) {
  launch(total_cost_kernel, strided_grid(costs.num_rows, kBlock, kBlock), kBlock, sum_memory(1),
         stream, costs, label, total);
}

void tied_rows(const DeviceCosts& costs, const std::int32_t* label, const std::int32_t* prices,
               std::int32_t* rows, unsigned* num_tied, cudaStream_t stream) {
  with_lanes_for(costs.stride, [&](auto lanes) {
    launch(tied_rows_kernel<lanes>, grid_for(costs.num_rows, lanes), kBlock, 0, stream, costs,
           label, prices, rows, num_tied);
  });
}

}  // namespace moefy::cuda
