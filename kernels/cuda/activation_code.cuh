#pragma once

#include "cuda/device_code.cuh"
#include "moefy/backend/activation.hpp"

namespace moefy::cuda {

__device__ inline float sigmoid(float x) { return 1.0F / (1.0F + expf(-x)); }

/// The functions of apply_activation.
__device__ inline float activated(Activation activation, float x) {
  constexpr float kSqrtHalf = 0.70710678F;
  constexpr float kSqrtTwoOverPi = 0.79788456F;
  const float above_zero = x > 0.0F ? x : 0.0F;
  switch (activation) {
    case Activation::gelu:
      return 0.5F * x * (1.0F + erff(x * kSqrtHalf));
    case Activation::gelu_tanh:
      return 0.5F * x * (1.0F + tanhf(kSqrtTwoOverPi * (x + 0.044715F * x * x * x)));
    case Activation::identity:
      return x;
    case Activation::leaky_relu:
      return x > 0.0F ? x : 0.01F * x;
    case Activation::mish:
      return x * tanhf(x > 20.0F ? x : log1pf(expf(x)));
    case Activation::quick_gelu:
      return x * sigmoid(1.702F * x);
    case Activation::relu:
      return above_zero;
    case Activation::relu_squared:
      return above_zero * above_zero;
    case Activation::relu6:
      return fminf(above_zero, 6.0F);
    case Activation::sigmoid:
      return sigmoid(x);
    case Activation::silu:
      return x * sigmoid(x);
    case Activation::tanh:
      return tanhf(x);
  }
  return x;
}

}  // namespace moefy::cuda
