#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>

#include "architecture_description.hpp"
#include "model_config.hpp"
#include "moefy/core/error.hpp"

namespace moefy {

namespace {

constexpr std::string_view kLayerMark = "{layer}";

/// What config.json says about the layers.
struct Sizes {
  std::int64_t num_neurons = 0;
  std::string num_neurons_key;
  std::int64_t hidden_size = 0;
  std::string text;  ///< for messages
};

std::string in_layer(const std::string& prefix, std::int64_t layer) {
  std::string result = prefix;
  return result.replace(result.find(kLayerMark), kLayerMark.size(), std::to_string(layer));
}

std::string full_name(const std::string& layer_prefix, const std::string& name) {
  return layer_prefix + "." + name;
}

/// Tensors whose name begins with `start`.
std::span<const TensorInfo> starting_with(const Checkpoint& checkpoint, std::string_view start) {
  const auto tensors = checkpoint.tensors();
  const auto first = std::lower_bound(
      tensors.begin(), tensors.end(), start,
      [](const TensorInfo& tensor, std::string_view wanted) { return tensor.name < wanted; });
  const auto last = std::find_if(first, tensors.end(), [&](const TensorInfo& tensor) {
    return !tensor.name.starts_with(start);
  });
  return {first, last};
}

/// One more than the highest layer number in the file.
std::int64_t count_layers(const Checkpoint& checkpoint, const std::string& prefix) {
  const std::string_view head = std::string_view(prefix).substr(0, prefix.find(kLayerMark));
  std::int64_t count = 0;
  for (const TensorInfo& tensor : starting_with(checkpoint, head)) {
    const char* begin = tensor.name.data() + head.size();
    const char* end = tensor.name.data() + tensor.name.size();
    std::int32_t number = 0;
    const auto [rest, error] = std::from_chars(begin, end, number);
    if (error == std::errc() && rest != end && *rest == '.' && number >= 0)
      count = std::max<std::int64_t>(count, std::int64_t{number} + 1);
  }
  return count;
}

std::string shape_text(std::span<const std::int64_t> shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

class LayerFinder {
 public:
  LayerFinder(const Architecture::Description& family, const Checkpoint& checkpoint)
      : family_(family),
        checkpoint_(checkpoint),
        config_(checkpoint.config_text(), (checkpoint.directory() / "config.json").string(),
                family.config_section),
        sizes_(read_sizes()),
        activation_(read_activation()) {}

  std::vector<LayerInfo> find() {
    for (const StackRule& stack : family_.stacks) add_stack(stack);
    if (layers_.empty()) throw InputError(checkpoint_.directory().string() + ": no FFN layers");
    return std::move(layers_);
  }

 private:
  std::int64_t required_count(std::span<const std::string> keys) const {
    if (const auto value = config_.count(keys)) return *value;
    throw InputError(fmt::format("{}: no '{}', which family {} needs", config_.path(),
                                 fmt::join(keys, "' or '"), family_.name));
  }

  Sizes read_sizes() const {
    Sizes sizes;
    sizes.hidden_size = required_count(family_.hidden_size_keys);
    const auto written = config_.count(family_.num_neurons_keys);
    sizes.num_neurons_key = config_.pointer(family_.num_neurons_keys);
    if (written) {
      sizes.num_neurons = *written;
    } else if (family_.num_neurons_per_hidden > 0) {
      sizes.num_neurons = family_.num_neurons_per_hidden * sizes.hidden_size;
    } else {
      sizes.num_neurons = required_count(family_.num_neurons_keys);
    }
    sizes.text = fmt::format("{} {}{} and {} {}", family_.num_neurons_keys.front(),
                             sizes.num_neurons, written ? "" : " (by default)",
                             family_.hidden_size_keys.front(), sizes.hidden_size);
    return sizes;
  }

  std::string read_activation() const {
    std::string name = config_.text(family_.activation_keys).value_or(family_.default_activation);
    if (name.empty())
      throw InputError(fmt::format("{}: no '{}', which family {} needs", config_.path(),
                                   fmt::join(family_.activation_keys, "' or '"), family_.name));
    const auto meaning = family_.activation_names.find(name);
    return meaning == family_.activation_names.end() ? name : meaning->second;
  }

  struct Naming {
    const std::string* prefix = nullptr;
    const TensorVariant* variant = nullptr;
  };

  /// The prefix and variant of which the first layer has most tensors; a damaged file is then told
  /// which of them it lacks.
  Naming choose_naming(const StackRule& stack) const {
    Naming best;
    std::ptrdiff_t most = 0;
    for (const std::string& prefix : stack.prefixes)
      for (const TensorVariant& variant : stack.variants) {
        const auto present =
            std::count_if(variant.begin(), variant.end(), [&](const TensorRule& rule) {
              return checkpoint_.find(full_name(in_layer(prefix, 0), rule.name)) != nullptr;
            });
        if (present > most) {
          most = present;
          best = {&prefix, &variant};
        }
      }
    return best;
  }

  void add_stack(const StackRule& stack) {
    const Naming naming = choose_naming(stack);
    if (!naming.prefix) {
      if (stack.optional) return;
      const auto& rule = stack.variants.front().front();
      throw InputError(fmt::format("{}: no tensor '{}' (family {}, prefixes tried: {})",
                                   checkpoint_.directory().string(),
                                   full_name(in_layer(stack.prefixes.front(), 0), rule.name),
                                   family_.name, fmt::join(stack.prefixes, ", ")));
    }
    const std::int64_t expected = required_count(stack.layer_count_keys);
    const std::int64_t found = count_layers(checkpoint_, *naming.prefix);
    if (expected != found)
      throw InputError(
          fmt::format("{}: {} says {} {} layers, but the tensors '{}' are there for {}",
                      checkpoint_.directory().string(), "config.json", expected, stack.name,
                      *naming.prefix, found));
    for (std::int64_t i = 0; i < expected; ++i) add_layer(stack, naming, i);
  }

  void add_layer(const StackRule& stack, const Naming& naming, std::int64_t index_in_stack) {
    LayerInfo layer;
    layer.index = static_cast<std::int64_t>(layers_.size());
    layer.stack = stack.name;
    layer.index_in_stack = index_in_stack;
    layer.name = in_layer(*naming.prefix, index_in_stack);
    layer.num_neurons = sizes_.num_neurons;
    layer.num_neurons_key = sizes_.num_neurons_key;
    layer.hidden_size = sizes_.hidden_size;
    layer.activation = activation_;
    for (const TensorRule& rule : *naming.variant) {
      const std::string name = full_name(layer.name, rule.name);
      const TensorInfo* tensor = checkpoint_.find(name);
      if (!tensor && rule.optional) continue;
      if (!tensor) fail(layer, name, "is missing");
      layer.tensors.push_back(checked_tensor(layer, rule, *tensor));
    }
    check_siblings(layer);
    layers_.push_back(std::move(layer));
  }

  [[noreturn]] void fail(const LayerInfo& layer, const std::string& tensor,
                         const std::string& problem) const {
    throw InputError(fmt::format("{}: layer {} (family {}): tensor '{}' {}",
                                 checkpoint_.directory().string(), layer.index, family_.name,
                                 tensor, problem));
  }

  FfnTensor checked_tensor(const LayerInfo& layer, const TensorRule& rule,
                           const TensorInfo& tensor) const {
    const std::int64_t neurons = layer.num_neurons * rule.num_parts;
    std::vector<std::int64_t> shape{neurons};
    if (rule.role == FfnRole::down_bias) {
      shape = {layer.hidden_size};
    } else if (rule.role == FfnRole::gate || rule.role == FfnRole::up ||
               rule.role == FfnRole::down) {
      shape.push_back(layer.hidden_size);
      if (!rule.neuron_first) std::swap(shape[0], shape[1]);
    }
    if (tensor.shape != shape)
      fail(layer, tensor.name,
           fmt::format("of {} has shape {}, but {} is expected: config.json says {}",
                       checkpoint_.shards()[tensor.shard].file_name, shape_text(tensor.shape),
                       shape_text(shape), sizes_.text));
    if (!is_ffn_dtype(tensor.dtype))
      fail(layer, tensor.name,
           fmt::format("of {} has dtype {}; FFN tensors must be F32, F16 or BF16",
                       checkpoint_.shards()[tensor.shard].file_name, name_of(tensor.dtype)));
    return {rule.role, tensor.name, rule.neuron_first, rule.part * layer.num_neurons,
            neurons,   tensor.dtype};
  }

  /// A tensor beside a known one ("up_proj.bias", "up_proj.lora_A") that the family file does not
  /// describe would be left behind when the neurons move.
  void check_siblings(const LayerInfo& layer) const {
    for (const FfnTensor& tensor : layer.tensors) {
      const std::string stem = tensor.tensor.substr(0, tensor.tensor.rfind('.') + 1);
      for (const TensorInfo& sibling : starting_with(checkpoint_, stem)) {
        const bool known =
            std::any_of(layer.tensors.begin(), layer.tensors.end(),
                        [&](const FfnTensor& t) { return t.tensor == sibling.name; });
        if (!known)
          fail(layer, sibling.name,
               fmt::format("belongs to the FFN, but {} does not describe it; add it to a family "
                           "file (docs/how-to/add-a-model-family.md)",
                           family_.source));
      }
    }
  }

  const Architecture::Description& family_;
  const Checkpoint& checkpoint_;
  ModelConfig config_;
  Sizes sizes_;
  std::string activation_;
  std::vector<LayerInfo> layers_;
};

}  // namespace

std::vector<LayerInfo> Architecture::layers(const Checkpoint& checkpoint) const {
  return LayerFinder(*description_, checkpoint).find();
}

}  // namespace moefy
