#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "moefy/core/error.hpp"
#include "moefy/jobs/context.hpp"
#include "moefy/jobs/split.hpp"

namespace moefy {

/// `moefy plan`: what `split` would do.
struct PlanJobConfig {
  SplitJobConfig split;
  std::int64_t ranks = 1;
  std::int64_t gpus = 0;  ///< of all hosts together; 0: not asked about
};

/// What is known before any work: a pure function of shapes, ranks and threads.
struct SplitPlan {
  struct Layer {
    std::int64_t index = 0;
    std::string name;
    /// With layers handed out largest first; the queue may differ. The first of those that share
    /// it.
    std::int64_t rank = 0;
    std::uint64_t bytes_to_read = 0;  ///< all FFN tensors are read for the fingerprint
    std::uint64_t bytes_to_send = 0;  ///< if rank 0 feeds
    double seconds = 0;               ///< estimate on one thread of a current server CPU
  };
  std::vector<Layer> layers;
  std::int64_t ranks_a_layer = 1;
  std::vector<double> seconds_by_rank;
  std::uint64_t peak_memory = 0;          ///< of the rank that needs most, bytes
  std::uint64_t peak_memory_if_sent = 0;  ///< the same if rank 0 sends the layers
  std::uint64_t peak_device_memory = 0;   ///< of a GPU, with --backend cuda
  std::uint64_t own_device_memory = 0;    ///< of it for the layers, taken before the work
  std::uint64_t bytes_to_read = 0;
  std::uint64_t bytes_to_send = 0;
  std::uint64_t output_bytes = 0;  ///< map and journal together
  double seconds = 0;
};
/// `ranks_a_layer`: how many ranks share the rows of a layer.
SplitPlan make_split_plan(std::span<const LayerInfo> layers, const SplitConfig& config,
                          std::int64_t ranks, std::size_t threads, std::int64_t ranks_a_layer = 1);

/// How ranks and GPUs come together.
struct GpuLayout {
  std::vector<std::int64_t> gpu_of_rank;  ///< in turn, as `split` takes them
  std::int64_t most_ranks = 0;            ///< that share one
  std::uint64_t memory = 0;               ///< of the GPU that needs most, bytes
};
GpuLayout make_gpu_layout(std::int64_t ranks, std::int64_t gpus, std::uint64_t memory_of_a_rank);

/// How many ranks share the rows of one layer.
struct ShardChoice {
  std::int64_t ranks_a_layer = 1;
  std::string reason;  ///< empty if every rank has layers of its own
};
/// What `--shard-rows auto` comes to: 1, unless there are more ranks than layers, or what a rank
/// needs then does not fit. `fits`: whether the memory of a plan does, on every rank.
ShardChoice choose_shards_of(std::span<const LayerInfo> layers, const SplitConfig& config,
                             std::int64_t ranks,
                             const std::function<bool(const SplitPlan& plan)>& fits);

/// Why a layer does not fit `device_memory` bytes of a GPU (0: no limit); empty if all do.
std::string device_problem(const SplitPlan& plan, std::uint64_t device_memory);

/// The plan of a split with the ranks of this launch (--dry-run).
PlanJobConfig plan_config_of(const SplitJobConfig& split, const JobContext& context);

/// Prints the plan; touches nothing. UsageError (2) if a layer cannot fit this machine's memory or
/// the output its disk.
ExitCode run_plan(const PlanJobConfig& config, JobContext& context);

}  // namespace moefy
