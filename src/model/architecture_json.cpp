#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "architecture_description.hpp"
#include "moefy/checkpoint/json_text.hpp"
#include "moefy/core/error.hpp"
#include "moefy/core/text.hpp"

namespace moefy {

namespace {

using Json = nlohmann::json;

constexpr std::string_view kLayerMark = "{layer}";
constexpr std::array kRoles{FfnRole::gate,      FfnRole::up,      FfnRole::down,
                            FfnRole::gate_bias, FfnRole::up_bias, FfnRole::down_bias};

/// One object of the file: its place for messages, and typed access to its keys.
class Node {
 public:
  Node(const Json& json, std::string place, std::vector<std::string> keys)
      : json_(json), place_(std::move(place)) {
    if (!json.is_object()) fail("an object is expected here");
    for (const auto& [key, value] : json.items())
      if (std::find(keys.begin(), keys.end(), key) == keys.end())
        fail(fmt::format("unknown key '{}'{}", key, suggestion(key, keys)));
  }

  [[noreturn]] void fail(const std::string& problem) const {
    throw InputError(fmt::format("{}: {}", place_, problem));
  }
  bool has(const std::string& key) const { return json_.contains(key); }
  const Json& at(const std::string& key) const {
    const auto found = json_.find(key);
    if (found == json_.end()) fail(fmt::format("no key '{}'", key));
    return *found;
  }
  std::string text(const std::string& key) const { return text_of(at(key), key); }
  std::string text(const std::string& key, const std::string& otherwise) const {
    return has(key) ? text(key) : otherwise;
  }
  bool flag(const std::string& key) const {
    if (!has(key)) return false;
    if (!at(key).is_boolean()) fail(fmt::format("'{}' must be true or false", key));
    return at(key).get<bool>();
  }
  /// A string, or a list of at least one.
  std::vector<std::string> texts(const std::string& key) const {
    const Json& value = at(key);
    if (!value.is_array()) return {text_of(value, key)};
    std::vector<std::string> result;
    for (const Json& item : value) result.push_back(text_of(item, key));
    if (result.empty()) fail(fmt::format("'{}' is empty", key));
    return result;
  }
  std::int64_t number(const Json& value, const std::string& key) const {
    constexpr std::int64_t kLargest = 1'000'000;
    if (!value.is_number_integer() || value < 0 || value > kLargest)
      fail(fmt::format("'{}' must hold whole numbers from 0 to {}", key, kLargest));
    return value.get<std::int64_t>();
  }
  std::string inner(const std::string& key) const { return place_ + ": " + key; }

 private:
  std::string text_of(const Json& value, const std::string& key) const {
    if (!value.is_string() || value.get_ref<const std::string&>().empty())
      fail(fmt::format("'{}' must be a text", key));
    return value.get<std::string>();
  }

  const Json& json_;
  std::string place_;
};

bool is_bias(FfnRole role) {
  return role == FfnRole::gate_bias || role == FfnRole::up_bias || role == FfnRole::down_bias;
}

void read_layout(const Node& node, TensorRule& rule) {
  if (!node.has("layout")) return;
  const std::vector<std::string> layouts{"neuron-first", "hidden-first"};
  const std::string layout = node.text("layout");
  if (is_bias(rule.role)) node.fail("a bias has one dimension and no 'layout'");
  if (std::find(layouts.begin(), layouts.end(), layout) == layouts.end())
    node.fail(fmt::format("unknown layout '{}'{}", layout, suggestion(layout, layouts)));
  rule.neuron_first = layout == layouts[0];
}

void read_slice(const Node& node, TensorRule& rule) {
  if (!node.has("slice")) return;
  const Json& slice = node.at("slice");
  if (!slice.is_array() || slice.size() != 2) node.fail("'slice' must be [part, number of parts]");
  rule.part = node.number(slice[0], "slice");
  rule.num_parts = node.number(slice[1], "slice");
  if (rule.part >= rule.num_parts) node.fail("'slice': the part must be below the number of parts");
  if (rule.role == FfnRole::down_bias) node.fail("the down bias belongs to no neuron: no 'slice'");
}

TensorRule read_tensor(const Json& json, FfnRole role, const std::string& place) {
  TensorRule rule;
  rule.role = role;
  rule.neuron_first = role != FfnRole::down;
  if (json.is_string()) {
    rule.name = json.get<std::string>();
  } else {
    const Node node(json, place, {"name", "layout", "slice", "optional"});
    rule.name = node.text("name");
    rule.optional = node.flag("optional");
    read_layout(node, rule);
    read_slice(node, rule);
  }
  if (rule.name.empty()) throw InputError(place + ": the name is empty");
  return rule;
}

TensorVariant read_variant(const Json& json, const std::string& place) {
  std::vector<std::string> names;
  for (const FfnRole role : kRoles) names.push_back(to_string(role));
  const Node node(json, place, names);
  TensorVariant variant;
  for (const FfnRole role : kRoles)
    if (const std::string name = to_string(role); node.has(name))
      variant.push_back(read_tensor(node.at(name), role, node.inner(name)));
  for (const char* needed : {"up", "down"})
    if (!node.has(needed)) node.fail(fmt::format("no key '{}'", needed));
  return variant;
}

StackRule read_stack(const Json& json, const std::string& place) {
  const Node node(json, place, {"name", "num_layers", "prefix", "tensors", "optional"});
  StackRule stack;
  stack.name = node.text("name");
  if (stack.name.find_first_of("., ") != std::string::npos)
    node.fail("'name' must not contain '.', ',' or a space: --layers uses it");
  stack.layer_count_keys = node.texts("num_layers");
  stack.optional = node.flag("optional");
  stack.prefixes = node.texts("prefix");
  for (const std::string& prefix : stack.prefixes) {
    const auto mark = prefix.find(kLayerMark);
    if (mark == std::string::npos || prefix.find(kLayerMark, mark + 1) != std::string::npos)
      node.fail(fmt::format("prefix '{}' must contain {} once", prefix, kLayerMark));
  }
  const Json& tensors = node.at("tensors");
  if (!tensors.is_array()) {
    stack.variants.push_back(read_variant(tensors, node.inner("tensors")));
    return stack;
  }
  for (std::size_t i = 0; i < tensors.size(); ++i)
    stack.variants.push_back(read_variant(tensors[i], node.inner(fmt::format("tensors[{}]", i))));
  if (stack.variants.empty()) node.fail("'tensors' is empty");
  return stack;
}

void read_num_neurons(const Node& root, Architecture::Description& result) {
  if (!root.at("num_neurons").is_object()) {
    result.num_neurons_keys = root.texts("num_neurons");
    return;
  }
  const Node node(root.at("num_neurons"), root.inner("num_neurons"), {"keys", "per_hidden"});
  result.num_neurons_keys = node.texts("keys");
  result.num_neurons_per_hidden = node.number(node.at("per_hidden"), "per_hidden");
}

void read_activation(const Node& root, Architecture::Description& result) {
  const Node node(root.at("activation"), root.inner("activation"), {"keys", "default", "names"});
  result.activation_keys = node.texts("keys");
  result.default_activation = node.text("default", "");
  if (!node.has("names")) return;
  const Json& names = node.at("names");
  if (!names.is_object()) node.fail("'names' must be an object");
  for (const auto& [name, meaning] : names.items()) {
    if (!meaning.is_string()) node.fail("'names' must map texts to texts");
    result.activation_names.emplace(name, meaning.get<std::string>());
  }
}

}  // namespace

Architecture Architecture::from_json(const std::string& text, const std::string& source) {
  check_json_object(text, source);
  const Json json = Json::parse(text);
  const Node root(json, source,
                  {"name", "model_types", "config_section", "hidden_size", "num_neurons",
                   "activation", "stacks"});
  auto result = std::make_shared<Description>();
  result->source = source;
  result->name = root.text("name");
  result->model_types = root.texts("model_types");
  result->config_section = root.text("config_section", "");
  result->hidden_size_keys = root.texts("hidden_size");
  read_num_neurons(root, *result);
  read_activation(root, *result);

  const Json& stacks = root.at("stacks");
  if (!stacks.is_array() || stacks.empty()) root.fail("'stacks' must be a list of stacks");
  std::set<std::string> names;
  for (std::size_t i = 0; i < stacks.size(); ++i) {
    result->stacks.push_back(read_stack(stacks[i], root.inner(fmt::format("stacks[{}]", i))));
    if (!names.insert(result->stacks.back().name).second)
      root.fail(fmt::format("two stacks are named '{}'", result->stacks.back().name));
  }
  Architecture architecture;
  architecture.description_ = std::move(result);
  return architecture;
}

}  // namespace moefy
