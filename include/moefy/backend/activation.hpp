#pragma once

#include <span>

namespace moefy {

/// The functions between the two products of an FFN layer. `gelu` is the exact one.
enum class Activation {
  gelu,
  gelu_tanh,
  identity,
  leaky_relu,
  mish,
  quick_gelu,
  relu,
  relu_squared,
  relu6,
  sigmoid,
  silu,
  tanh,
};

/// Every value becomes the function of itself, in fp32.
void apply_activation(Activation activation, std::span<float> values);

}  // namespace moefy
