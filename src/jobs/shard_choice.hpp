#pragma once

#include <span>
#include <string>

#include "moefy/jobs/context.hpp"
#include "moefy/jobs/plan.hpp"
#include "moefy/jobs/split.hpp"

namespace moefy {

/// Why the rows of this split's layers cannot be shared; empty if they can.
std::string sharding_obstacle(const SplitJobConfig& config);

/// What `--shard-rows` comes to on these ranks. A number is taken as it is, but for the ranks that
/// there are; `auto` looks at `layers`, and at the memory that is free on each host, and on this
/// rank's GPU (`device_memory` bytes; 0: it has none). Equal on all ranks, but for the reason,
/// which only rank 0 knows. Collective.
ShardChoice choose_shards(const SplitJobConfig& config, std::span<const LayerInfo> layers,
                          std::uint64_t device_memory, JobContext& context);

}  // namespace moefy
