#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "moefy/core/error.hpp"
#include "moefy/core/text.hpp"
#include "moefy/model/architecture.hpp"

namespace moefy {

namespace {

struct Range {
  std::int64_t first = 0;
  std::int64_t last = 0;
};

/// Digits only: no sign, no space.
std::optional<std::int64_t> parse_number(std::string_view text) {
  if (text.empty() || text.find_first_not_of("0123456789") != std::string_view::npos)
    return std::nullopt;
  return parse_integer(text);
}

std::optional<Range> parse_range(std::string_view text) {
  const auto dash = text.find('-');
  const auto first = parse_number(text.substr(0, dash));
  const auto last = dash == std::string_view::npos ? first : parse_number(text.substr(dash + 1));
  if (!first || !last || *first > *last) return std::nullopt;
  return Range{*first, *last};
}

std::vector<std::string> stack_names(std::span<const LayerInfo> layers) {
  std::vector<std::string> names;
  for (const LayerInfo& layer : layers)
    if (names.empty() || names.back() != layer.stack) names.push_back(layer.stack);
  return names;
}

/// Marks what one item of the list names, or returns what is wrong with it.
std::optional<std::string> select_item(const std::string& item, std::span<const LayerInfo> layers,
                                       std::vector<bool>& chosen) {
  const auto dot = item.find('.');
  const bool in_stack = dot != std::string::npos;
  const std::string stack = in_stack ? item.substr(0, dot) : "";
  const auto names = stack_names(layers);
  if (in_stack && std::find(names.begin(), names.end(), stack) == names.end())
    return fmt::format("--layers: '{}': no stack '{}'{}", item, stack, suggestion(stack, names));
  const auto range = parse_range(std::string_view(item).substr(in_stack ? dot + 1 : 0));
  if (!range)
    return fmt::format("--layers: '{}' is no layer or range; write 3, 0-3 or {}.0-3", item,
                       names.empty() ? "encoder" : names.front());

  std::int64_t count = 0;
  for (std::size_t i = 0; i < layers.size(); ++i) {
    if (in_stack && layers[i].stack != stack) continue;
    const std::int64_t number = in_stack ? layers[i].index_in_stack : layers[i].index;
    count = std::max(count, number + 1);
    if (number >= range->first && number <= range->last) chosen[i] = true;
  }
  if (range->last < count) return std::nullopt;
  return fmt::format("--layers: '{}' goes beyond the last layer, {}{}", item,
                     in_stack ? stack + "." : "", count - 1);
}

}  // namespace

std::vector<std::int64_t> select_layers(const std::string& text,
                                        std::span<const LayerInfo> layers) {
  std::vector<bool> chosen(layers.size(), text.empty());
  std::vector<std::string> problems;
  if (!text.empty())
    for (const std::string& item : split_text(text, ','))
      if (auto problem = select_item(item, layers, chosen)) problems.push_back(std::move(*problem));
  if (!problems.empty()) throw UsageError(problems);

  std::vector<std::int64_t> result;
  for (std::size_t i = 0; i < layers.size(); ++i)
    if (chosen[i]) result.push_back(layers[i].index);
  return result;
}

}  // namespace moefy
