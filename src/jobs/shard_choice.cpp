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

/// By host; only rank 0 gets it.
std::map<std::string, HostRanks> gather_hosts(Communicator& comm) {
  const std::uint64_t free = read_memory_info().available;
  const std::string host = host_name();
  std::vector<std::byte> mine(sizeof free);
  std::memcpy(mine.data(), &free, sizeof free);
  const std::vector<std::byte> name = to_bytes(host);
  mine.insert(mine.end(), name.begin(), name.end());
  std::map<std::string, HostRanks> hosts;
  for (const std::vector<std::byte>& bytes : comm.gather(mine)) {
    std::uint64_t free_there = 0;
    std::memcpy(&free_there, bytes.data(), sizeof free_there);
    HostRanks& ranks = hosts[to_text(std::span(bytes).subspan(sizeof free_there))];
    ++ranks.ranks;
    ranks.free = ranks.ranks == 1 ? free_there : std::min(ranks.free, free_there);
  }
  return hosts;
}

bool fits(const std::map<std::string, HostRanks>& hosts, std::uint64_t bytes_a_rank) {
  return std::ranges::all_of(hosts, [&](const auto& entry) {
    const HostRanks& host = entry.second;
    return host.free == 0 || host.ranks * bytes_a_rank <= host.free;
  });
}

}  // namespace

std::string sharding_obstacle(const SplitJobConfig& config) {
  if (!config.recordings.empty())
    return "methods and options that look at --recordings work on whole layers";
  return {};
}

ShardChoice choose_shards(const SplitJobConfig& config, std::span<const LayerInfo> layers,
                          JobContext& context) {
  Communicator& comm = context.comm;
  if (comm.size() == 1) {
    if (config.shard_rows > 1)
      context.log.info(
          fmt::format("--shard-rows {}: there is one rank, which has all rows", config.shard_rows));
    return {};
  }
  if (config.shard_rows > 0)
    return {std::min<std::int64_t>(config.shard_rows, comm.size()), "--shard-rows"};
  if (!sharding_obstacle(config).empty()) return {};
  const auto hosts = gather_hosts(comm);
  ShardChoice choice;
  if (context.is_root())
    choice = choose_shards_of(layers, config.split, comm.size(),
                              [&](std::uint64_t bytes) { return fits(hosts, bytes); });
  std::vector<std::byte> text = to_bytes(std::to_string(choice.ranks_a_layer));
  comm.broadcast(text);
  choice.ranks_a_layer = std::stoll(to_text(text));
  return choice;
}

}  // namespace moefy
