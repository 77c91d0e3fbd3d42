#include "shard_choice.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <vector>

#include "machine.hpp"
#include "moefy/core/host.hpp"
#include "moefy/core/text.hpp"

namespace moefy {

namespace {

/// Ranks of a host, and the memory that is free there.
struct HostRanks {
  std::uint64_t ranks = 0;
  std::uint64_t free = 0;
};

/// What there is to hold layers in; only rank 0 gets it.
struct Memory {
  std::map<std::string, HostRanks> hosts;
  std::uint64_t device = 0;  ///< free on the GPU that has least; 0: there are none

  bool fits(const SplitPlan& plan) const {
    if (device > 0 && plan.peak_device_memory > device) return false;
    return std::ranges::all_of(hosts, [&](const auto& entry) {
      const HostRanks& host = entry.second;
      return host.free == 0 || host.ranks * plan.peak_memory <= host.free;
    });
  }
};

Memory gather_memory(Communicator& comm, std::uint64_t device_memory) {
  const std::uint64_t mine[] = {read_memory_info().available, device_memory};
  std::vector<std::byte> bytes(sizeof mine);
  std::memcpy(bytes.data(), mine, sizeof mine);
  const std::vector<std::byte> name = to_bytes(host_name());
  bytes.insert(bytes.end(), name.begin(), name.end());
  Memory memory;
  for (const std::vector<std::byte>& rank : comm.gather(bytes)) {
    std::uint64_t there[2] = {};
    std::memcpy(there, rank.data(), sizeof there);
    HostRanks& host = memory.hosts[to_text(std::span(rank).subspan(sizeof there))];
    ++host.ranks;
    host.free = host.ranks == 1 ? there[0] : std::min(host.free, there[0]);
    if (memory.device == 0 || there[1] < memory.device) memory.device = there[1];
  }
  return memory;
}

/// The number of ranks, where --shard-rows does not say it.
ShardChoice choose_by_memory(const SplitJobConfig& config, std::span<const LayerInfo> layers,
                             std::uint64_t device_memory, JobContext& context) {
  Communicator& comm = context.comm;
  const Memory memory = gather_memory(comm, device_memory);
  ShardChoice choice;
  if (context.is_root())
    choice = choose_shards_of(layers, config.split, comm.size(),
                              [&](const SplitPlan& plan) { return memory.fits(plan); });
  std::vector<std::byte> text = to_bytes(std::to_string(choice.ranks_a_layer));
  comm.broadcast(text);
  choice.ranks_a_layer = std::stoll(to_text(text));
  return choice;
}

}  // namespace

std::string sharding_obstacle(const SplitJobConfig& config) {
  if (!config.recordings.empty())
    return "methods and options that look at --recordings work on whole layers";
  return {};
}

ShardChoice choose_shards(const SplitJobConfig& config, std::span<const LayerInfo> layers,
                          std::uint64_t device_memory, JobContext& context) {
  Communicator& comm = context.comm;
  ShardChoice choice;
  if (comm.size() == 1) {
    if (config.shard_rows > 1)
      context.log.info(
          fmt::format("--shard-rows {}: there is one rank, which has all rows", config.shard_rows));
  } else if (config.shard_rows > 0) {
    choice = {std::min<std::int64_t>(config.shard_rows, comm.size()), "--shard-rows"};
  } else if (sharding_obstacle(config).empty()) {
    choice = choose_by_memory(config, layers, device_memory, context);
  }
  return choice;
}

}  // namespace moefy
