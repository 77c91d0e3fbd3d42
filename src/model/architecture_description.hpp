#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "moefy/model/architecture.hpp"

namespace moefy {

/// Where one role of the FFN stands, relative to the layer's prefix.
struct TensorRule {
  FfnRole role = FfnRole::up;
  std::string name;
  bool neuron_first = true;
  bool optional = false;
  /// Part `part` of `num_parts` equal slices along the neuron dimension.
  std::int64_t part = 0;
  std::int64_t num_parts = 1;
};

/// One way in which a family's files name the tensors of a layer.
using TensorVariant = std::vector<TensorRule>;

/// A run of equal layers: "decoder", "encoder".
struct StackRule {
  std::string name;
  std::vector<std::string> layer_count_keys;
  std::vector<std::string> prefixes;  ///< each with one {layer}
  std::vector<TensorVariant> variants;
  bool optional = false;  ///< files without any of its tensors are complete, too
};

/// The content of a family file. All lists of keys mean: the first that config.json has.
struct Architecture::Description {
  std::string source;
  std::string name;
  std::vector<std::string> model_types;
  std::string config_section;  ///< object of config.json that is asked first; may be empty
  std::vector<std::string> hidden_size_keys;
  std::vector<std::string> num_neurons_keys;
  std::int64_t num_neurons_per_hidden = 0;  ///< where no key has a value; 0: an error then
  std::vector<std::string> activation_keys;
  std::string default_activation;
  std::map<std::string, std::string> activation_names;  ///< what a value of the config means here
  std::vector<StackRule> stacks;
};

}  // namespace moefy
