#pragma once

#include "host.hpp"

namespace moefy {

/// What a host's class carries beside plain Llama attention in every layer. What is not named here
/// is refused, so that nothing is dropped silently.
struct Abilities {
  enum class Biases {
    none,
    query_key_value,  ///< or none
    whole_attention,  ///< o_proj, too, or none
  };
  enum class Norms { none, optional, required };
  enum class Window { none, same_in_all_layers, by_layer };
  enum class DenseLayers { none, first, anywhere };

  Biases biases = Biases::none;
  Norms qk_norms = Norms::none;
  Window window = Window::none;
  DenseLayers dense_layers = DenseLayers::none;
  bool partial_rotary = false;
  bool split_qkv = false;     ///< known to fit Phi-3's attention
  bool offset_norms = false;  ///< known to fit Gemma
  bool multipliers = false;   ///< Granite's
  bool router_bias = false;
  bool deep_router = false;  ///< two layers with tanh between them
  bool shared_experts = false;
};

/// All that stands between a class with these abilities and the model, but for factors.
Obstacles obstacles_to(const Abilities& abilities, const ConversionPlan& plan,
                       const Family& family);

/// Layers before the first that is converted; -1 if others stay dense, too.
std::int64_t leading_dense_layers(const ConversionPlan& plan);

}  // namespace moefy
