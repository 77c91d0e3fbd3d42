#include "moefy/backend/activation.hpp"

#include <algorithm>
#include <cmath>

#include "moefy/core/error.hpp"

namespace moefy {

namespace {

float sigmoid(float x) { return 1.0F / (1.0F + std::exp(-x)); }
float silu(float x) { return x * sigmoid(x); }
float relu(float x) { return x > 0.0F ? x : 0.0F; }
float relu_squared(float x) { return relu(x) * relu(x); }
float relu_up_to_six(float x) { return std::min(relu(x), 6.0F); }
float leaky_relu(float x) { return x > 0.0F ? x : 0.01F * x; }
float gelu(float x) { return 0.5F * x * (1.0F + std::erf(x * 0.70710678F)); }
float gelu_tanh(float x) {
  constexpr float kSqrtTwoOverPi = 0.79788456F;
  return 0.5F * x * (1.0F + std::tanh(kSqrtTwoOverPi * (x + 0.044715F * x * x * x)));
}
float quick_gelu(float x) { return x * sigmoid(1.702F * x); }
float identity(float x) { return x; }
float hyperbolic_tangent(float x) { return std::tanh(x); }
float mish(float x) {
  // log(1 + e^x) is x itself where e^x would overflow.
  const float softplus = x > 20.0F ? x : std::log1p(std::exp(x));
  return x * std::tanh(softplus);
}

using Function = float (*)(float);

Function function_of(Activation activation) {
  switch (activation) {
    case Activation::gelu:
      return gelu;
    case Activation::gelu_tanh:
      return gelu_tanh;
    case Activation::identity:
      return identity;
    case Activation::leaky_relu:
      return leaky_relu;
    case Activation::mish:
      return mish;
    case Activation::quick_gelu:
      return quick_gelu;
    case Activation::relu:
      return relu;
    case Activation::relu_squared:
      return relu_squared;
    case Activation::relu6:
      return relu_up_to_six;
    case Activation::sigmoid:
      return sigmoid;
    case Activation::silu:
      return silu;
    case Activation::tanh:
      return hyperbolic_tangent;
  }
  throw InternalError("unknown activation");
}

}  // namespace

void apply_activation(Activation activation, std::span<float> values) {
  const Function function = function_of(activation);
  for (float& value : values) value = function(value);
}

}  // namespace moefy
