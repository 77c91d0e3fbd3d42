#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "moefy/core/error.hpp"
#include "moefy/core/text.hpp"
#include "moefy/model/architecture.hpp"

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

constexpr std::array<std::pair<std::string_view, Function>, 20> kActivations{{
    {"gelu", gelu},
    {"gelu_accurate", gelu_tanh},
    {"gelu_fast", gelu_tanh},
    {"gelu_new", gelu_tanh},
    {"gelu_python", gelu},
    {"gelu_python_tanh", gelu_tanh},
    {"gelu_pytorch_tanh", gelu_tanh},
    {"identity", identity},
    {"leaky_relu", leaky_relu},
    {"linear", identity},
    {"mish", mish},
    {"quick_gelu", quick_gelu},
    {"relu", relu},
    {"relu2", relu_squared},
    {"relu6", relu_up_to_six},
    {"relu_squared", relu_squared},
    {"sigmoid", sigmoid},
    {"silu", silu},
    {"swish", silu},
    {"tanh", hyperbolic_tangent},
}};

Function find_activation(const std::string& name) {
  for (const auto& [known, function] : kActivations)
    if (known == name) return function;
  return nullptr;
}

}  // namespace

bool is_known_activation(const std::string& name) { return find_activation(name) != nullptr; }

void apply_activation(const std::string& name, std::span<float> values) {
  const Function function = find_activation(name);
  if (!function) {
    std::vector<std::string> known;
    for (const auto& entry : kActivations) known.emplace_back(entry.first);
    throw InputError(fmt::format("activation '{}' is not known{}", name, suggestion(name, known)));
  }
  for (float& value : values) value = function(value);
}

}  // namespace moefy
