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

bool has_deep_router(const ConversionPlan& plan) {
  return std::ranges::any_of(plan.results, [](const LayerResult* result) {
    return result && result->router.output.rows() > 0;
  });
}

bool has_distance_router(const ConversionPlan& plan) {
  return std::ranges::any_of(plan.results, [](const LayerResult* result) {
    return result && result->router.kind == kEuclideanCentroid;
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
  hosts.push_back(make_granitemoe_host());
  hosts.push_back(make_granitemoeshared_host());
  hosts.push_back(make_dots1_host());
  hosts.push_back(make_solar_open_host());
  hosts.push_back(make_exaone_moe_host());
  hosts.push_back(make_llama_moe_host());
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

using Hosts = std::vector<std::unique_ptr<Host>>;

/// `plan` with other counts for as long as it lives: hosts are asked what they could carry.
class OtherCounts {
 public:
  explicit OtherCounts(ConversionPlan& plan) : plan_(plan), shape_(plan.shape) {}
  OtherCounts(const OtherCounts&) = delete;
  OtherCounts& operator=(const OtherCounts&) = delete;
  ~OtherCounts() { plan_.shape = shape_; }

  /// The first host that can carry the counts, or nullptr.
  const Host* try_counts(std::int64_t experts, std::int64_t shared, std::int64_t top_k,
                         const Hosts& hosts, const Family& family) {
    plan_.shape.num_experts = experts;
    plan_.shape.num_shared = shared;
    plan_.shape.top_k = top_k;
    for (const std::unique_ptr<Host>& host : hosts)
      if (host->obstacles(plan_, family).none()) return host.get();
    return nullptr;
  }

 private:
  ConversionPlan& plan_;
  ExpertShape shape_;
};

/// Calls try_value(v) for 1 ≤ v ≤ largest, the nearest to `value` first and the smaller one on a
/// tie, until it says true.
template <class Try>
bool nearest_first(std::int64_t value, std::int64_t largest, Try&& try_value) {
  for (std::int64_t distance = 0; distance < value + largest; ++distance)
    for (const std::int64_t other : {value - distance, value + distance}) {
      if (other >= 1 && other <= largest && try_value(other)) return true;
      if (distance == 0) break;
    }
  return false;
}

/// What to do where only the numbers stand in the way of `hosts`.
std::string nearest_counts(ConversionPlan& plan, const Hosts& hosts, const Family& family) {
  const ExpertShape shape = plan.shape;
  OtherCounts counts(plan);
  std::vector<std::string> ways;
  nearest_first(shape.top_k, shape.num_experts, [&](std::int64_t top_k) {
    const Host* host = counts.try_counts(shape.num_experts, shape.num_shared, top_k, hosts, family);
    if (host)
      ways.push_back(fmt::format("--top-k {} with this map (host {})", top_k, host->name()));
    return host != nullptr;
  });
  const auto other_split = [&](std::int64_t shared, std::int64_t top_k) {
    const std::int64_t lists = shape.num_experts + shape.num_shared;
    return nearest_first(lists - shared, 2 * lists, [&](std::int64_t experts) {
      if (experts < top_k) return false;
      const Host* host = counts.try_counts(experts, shared, top_k, hosts, family);
      if (!host) return false;
      ways.push_back(
          fmt::format("split --experts {}{} (host {}{})", experts,
                      shared > 0 ? fmt::format(" --shared {}", shared) : " without shared experts",
                      host->name(),
                      host->top_k_editable() ? ", any top-k"
                      : top_k != shape.top_k ? fmt::format(", --top-k {}", top_k)
                                             : ""));
      return true;
    });
  };
  if (other_split(shape.num_shared, shape.top_k)) return join_text(ways, ", or ");
  if (other_split(0, shape.top_k) || !ways.empty()) return join_text(ways, ", or ");
  nearest_first(shape.top_k, shape.num_experts,
                [&](std::int64_t top_k) { return other_split(0, top_k); });
  return join_text(ways, ", or ");
}

/// Stock hosts that can carry the model as it is, but are not chosen by themselves.
std::string others_that_can(const ConversionPlan& plan, const Family& family) {
  std::vector<std::string> names;
  for (const std::unique_ptr<Host>& host : all_hosts())
    if (host->is_stock() && !host->is_automatic(family) && host->obstacles(plan, family).none())
      names.push_back("--host " + host->name());
  return join_text(names, " or ");
}

[[noreturn]] void refuse(ConversionPlan& plan, std::span<const std::string> reasons,
                         const Hosts& hosts_for_family, const Family& family) {
  const ExpertShape& shape = plan.shape;
  std::string message = fmt::format(
      "no MoE host can carry this model with {} experts, {} shared, top-k {}:", shape.num_experts,
      shape.num_shared, shape.top_k);
  for (const std::string& reason : reasons) message += "\n  " + reason;
  const std::string nearest = nearest_counts(plan, hosts_for_family, family);
  if (!nearest.empty()) message += "\nnearest that works: " + nearest;
  if (const std::string others = others_that_can(plan, family);
      plan.config.host == "auto" && !others.empty())
    message += "\nasked for by name works: " + others;
  message += "\n--host dense always works: the same function, neurons in the map's order";
  throw UsageError(message);
}

}  // namespace

std::unique_ptr<Host> choose_host(ConversionPlan& plan, const Family& family) {
  const std::string& wanted = plan.config.host;
  const auto is_candidate = [&](const Host& host) {
    if (wanted != "auto") return host.name() == wanted;
    return host.name() != "dense" && host.is_automatic(family);
  };
  std::vector<std::string> reasons;
  Hosts hosts_for_family;
  if (wanted != "dense" && !family.obstacles.empty())
    refuse(plan, family.obstacles, hosts_for_family, family);
  for (std::unique_ptr<Host>& host : all_hosts()) {
    if (!is_candidate(*host)) continue;
    const Obstacles obstacles = host->obstacles(plan, family);
    if (obstacles.none()) return std::move(host);
    // Where the class does not fit, counts do not matter.
    for (const std::string& reason :
         obstacles.family.empty() ? obstacles.counts : obstacles.family) {
      const std::string line = fmt::format("{}: {}", host->name(), reason);
      if (std::ranges::find(reasons, line) == reasons.end()) reasons.push_back(line);
    }
    if (obstacles.family.empty()) hosts_for_family.push_back(std::move(host));
  }
  refuse(plan, reasons, hosts_for_family, family);
}

}  // namespace moefy
