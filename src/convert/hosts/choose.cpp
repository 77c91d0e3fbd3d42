#include <fmt/format.h>

#include <algorithm>
#include <bit>

#include "host.hpp"
#include "moefy/core/error.hpp"
#include "moefy/core/text.hpp"

namespace moefy {

bool is_power_of_two(std::int64_t value) {
  return value > 0 && std::has_single_bit(static_cast<std::uint64_t>(value));
}

bool has_router_bias(const ConversionPlan& plan) {
  return std::ranges::any_of(plan.results, [](const LayerResult* result) {
    return result && !result->router.bias.empty();
  });
}

std::vector<std::int64_t> dense_layers(const ConversionPlan& plan) {
  std::vector<std::int64_t> layers;
  for (std::size_t layer = 0; layer < plan.results.size(); ++layer)
    if (!plan.results[layer]) layers.push_back(static_cast<std::int64_t>(layer));
  return layers;
}

int exact_log2(std::int64_t power_of_two) {
  require(is_power_of_two(power_of_two), "a power of two");
  return std::countr_zero(static_cast<std::uint64_t>(power_of_two));
}

std::vector<std::unique_ptr<Host>> all_hosts() {
  std::vector<std::unique_ptr<Host>> hosts;
  hosts.push_back(make_qwen2_moe_host(false));
  hosts.push_back(make_qwen3_moe_host(false));
  hosts.push_back(make_glm4_moe_host());
  hosts.push_back(make_mixtral_host());
  hosts.push_back(make_qwen2_moe_host(true));
  hosts.push_back(make_qwen3_moe_host(true));
  hosts.push_back(make_dense_host());
  return hosts;
}

std::vector<std::string> host_names() {
  std::vector<std::string> names;
  for (const std::unique_ptr<Host>& host : all_hosts())
    if (std::ranges::find(names, host->name()) == names.end()) names.push_back(host->name());
  return names;
}

std::string host_description(std::string_view name) {
  for (const std::unique_ptr<Host>& host : all_hosts())
    if (host->name() == name) return host->description();
  throw UsageError(fmt::format("host '{}' is unknown{}", name, suggestion(name, host_names())));
}

namespace {

/// The power of two nearest to `value`, the smaller one on a tie.
std::int64_t nearest_power_of_two(std::int64_t value) {
  const auto below = static_cast<std::int64_t>(std::bit_floor(static_cast<std::uint64_t>(value)));
  return value - below <= 2 * below - value ? below : 2 * below;
}

/// What to do where only the numbers stand in the way.
std::string nearest_counts(const ExpertShape& shape, std::span<const std::string> hosts) {
  std::vector<std::string> ways;
  const auto has = [&](const char* name) { return std::ranges::find(hosts, name) != hosts.end(); };
  const std::int64_t experts = nearest_power_of_two(shape.num_experts);
  std::int64_t top_k = nearest_power_of_two(shape.top_k);
  if (top_k > shape.num_experts) top_k /= 2;
  if (has("qwen2-moe")) {
    ways.push_back(fmt::format("--top-k {} with this map (host qwen2-moe)", top_k));
    ways.push_back(fmt::format("split --experts {} --shared {} (host qwen2-moe, any top-k)",
                               experts, shape.num_shared));
  } else if (has("mixtral")) {
    if (shape.num_shared > 0)
      ways.push_back(fmt::format("split --experts {} without shared experts (host mixtral)",
                                 shape.num_experts + shape.num_shared));
    else
      ways.push_back(fmt::format("--top-k {} with this map (host mixtral)", top_k));
  }
  return join_text(ways, ", or ");
}

[[noreturn]] void refuse(const ConversionPlan& plan, std::span<const std::string> reasons,
                         std::span<const std::string> hosts_for_family) {
  const ExpertShape& shape = plan.shape;
  std::string message = fmt::format(
      "no MoE host can carry this model with {} experts, {} shared, top-k {}:", shape.num_experts,
      shape.num_shared, shape.top_k);
  for (const std::string& reason : reasons) message += "\n  " + reason;
  const std::string nearest = nearest_counts(shape, hosts_for_family);
  if (!nearest.empty()) message += "\nnearest that works: " + nearest;
  message += "\n--host dense always works: the same function, neurons in the map's order";
  throw UsageError(message);
}

}  // namespace

std::unique_ptr<Host> choose_host(ConversionPlan& plan, const Family& family) {
  const std::string& wanted = plan.config.host;
  std::vector<std::string> reasons;
  std::vector<std::string> hosts_for_family;
  for (std::unique_ptr<Host>& host : all_hosts()) {
    if (wanted == "auto" ? host->name() == "dense" : host->name() != wanted) continue;
    const Obstacles obstacles = host->obstacles(plan, family);
    if (obstacles.none()) return std::move(host);
    if (obstacles.family.empty()) hosts_for_family.push_back(host->name());
    std::vector<std::string> all = obstacles.family;
    all.insert(all.end(), obstacles.counts.begin(), obstacles.counts.end());
    for (const std::string& reason : all) {
      const std::string line = fmt::format("{}: {}", host->name(), reason);
      if (std::ranges::find(reasons, line) == reasons.end()) reasons.push_back(line);
    }
  }
  refuse(plan, reasons, hosts_for_family);
}

}  // namespace moefy
