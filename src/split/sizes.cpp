#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>

#include "moefy/core/error.hpp"
#include "moefy/core/text.hpp"
#include "moefy/split/splitter.hpp"

namespace moefy {

namespace {

std::optional<std::size_t> parse_size(std::string_view text) {
  const std::optional<std::int64_t> value = parse_integer(text);
  if (!value || *value < 0) return std::nullopt;
  return static_cast<std::size_t>(*value);
}

/// Bounds of --sizes for `experts` experts that share `neurons`; empty if the text is not
/// understood.
std::optional<std::vector<SizeBounds>> parse_bounds(const std::string& text, std::size_t experts) {
  if (const std::size_t dots = text.find(".."); dots != std::string::npos) {
    const auto lower = parse_size(std::string_view(text).substr(0, dots));
    const auto upper = parse_size(std::string_view(text).substr(dots + 2));
    if (!lower || !upper || *lower > *upper) return std::nullopt;
    return std::vector<SizeBounds>(experts, {*lower, *upper});
  }
  const std::vector<std::string> pieces = split_text(text, ',');
  if (pieces.size() != 1 && pieces.size() != experts) return std::nullopt;
  std::vector<SizeBounds> bounds;
  for (std::size_t e = 0; e < experts; ++e) {
    const auto size = parse_size(pieces[pieces.size() == 1 ? 0 : e]);
    if (!size) return std::nullopt;
    bounds.push_back({*size, *size});
  }
  return bounds;
}

std::string sizes_problem(const SplitConfig& config, std::size_t neurons) {
  if (config.sizes == "equal") return {};
  const auto experts = static_cast<std::size_t>(config.experts);
  const auto bounds = parse_bounds(config.sizes, experts);
  if (!bounds) {
    return fmt::format("--sizes '{}': expected equal, N, {} sizes N,N,…, or MIN..MAX", config.sizes,
                       experts);
  }
  std::size_t lower = 0;
  std::size_t upper = 0;
  for (const SizeBounds& bound : *bounds) {
    lower += bound.lower;
    upper += bound.upper;
  }
  if (lower <= neurons && neurons <= upper) return {};
  return fmt::format("--sizes {}: the experts take {} to {} neurons, the layer has {} to give",
                     config.sizes, lower, upper, neurons);
}

/// Lists that may share neurons: of one width, which must fit.
std::string sharing_problem(const SplitConfig& config, std::size_t neurons) {
  if (config.sizes != "equal" && !parse_size(config.sizes))
    return fmt::format(
        "--sizes '{}': with --sharing {} expected equal or N, neurons of each expert", config.sizes,
        config.sharing);
  const std::size_t width = sharing_width(config, neurons);
  const auto shared = config.sharing == "inter" ? static_cast<std::size_t>(config.shared) : 0;
  if (width >= 1 && width <= neurons && (shared + 1) * width <= neurons) return {};
  return fmt::format(
      "--sharing {}: {} always-on experts and a routed one of {} neurons each do not fit into {} "
      "neurons",
      config.sharing, shared, width, neurons);
}

}  // namespace

std::size_t sharing_width(const SplitConfig& config, std::size_t num_neurons) {
  const auto experts = static_cast<std::size_t>(config.experts);
  const auto shared = static_cast<std::size_t>(config.shared);
  if (config.sizes != "equal") return parse_size(config.sizes).value();
  return config.sharing == "inner" ? (num_neurons + experts - 1) / experts
                                   : num_neurons / (experts + shared);
}

std::size_t kept_neurons(const SplitConfig& config, std::size_t num_neurons) {
  // The product of a decimal fraction and a count may lie a rounding below a whole number.
  constexpr double kRounding = 1e-9;
  const double kept = std::floor(static_cast<double>(num_neurons) * config.keep + kRounding);
  return std::max<std::size_t>(1, static_cast<std::size_t>(kept));
}

std::size_t shared_neurons(const SplitConfig& config, std::size_t num_neurons) {
  const auto lists = static_cast<std::size_t>(config.experts + config.shared);
  const std::vector<std::size_t> sizes = equal_sizes(num_neurons, lists);
  return std::accumulate(sizes.begin(), sizes.begin() + config.shared, std::size_t{0});
}

Capacities routed_capacities(const SplitConfig& config, std::size_t num_neurons) {
  const std::size_t routed = num_neurons - shared_neurons(config, num_neurons);
  const auto experts = static_cast<std::size_t>(config.experts);
  if (config.sizes == "equal") return Capacities::balanced(routed, experts);
  const auto bounds = parse_bounds(config.sizes, experts);
  require(bounds.has_value(), "--sizes was not validated");
  return Capacities::bounded(*bounds);
}

std::vector<std::string> split_problems(const SplitConfig& config, const LayerInfo& layer) {
  std::vector<std::string> problems;
  const std::int64_t lists = config.experts + config.shared;
  if (lists > layer.num_neurons) {
    problems.push_back(fmt::format(
        "--experts {} --shared {}: layer {} ({}) has only {} neurons, one per expert at the most",
        config.experts, config.shared, layer.index, layer.name, layer.num_neurons));
    return problems;
  }
  if ((config.weights == "gate" || config.weights == "concat") && !layer.gated()) {
    problems.push_back(fmt::format("--weights {}: layer {} ({}) has no gate matrix; use up or down",
                                   config.weights, layer.index, layer.name));
  }
  const auto neurons = static_cast<std::size_t>(layer.num_neurons);
  const std::string sizes = config.sharing == "none"
                                ? sizes_problem(config, neurons - shared_neurons(config, neurons))
                                : sharing_problem(config, neurons);
  if (!sizes.empty()) problems.push_back(fmt::format("layer {}: {}", layer.index, sizes));
  return problems;
}

}  // namespace moefy
