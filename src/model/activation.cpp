#include <fmt/format.h>

#include <array>
#include <utility>

#include "moefy/core/error.hpp"
#include "moefy/core/text.hpp"
#include "moefy/model/architecture.hpp"

namespace moefy {

namespace {

constexpr std::array<std::pair<std::string_view, Activation>, 20> kActivations{{
    {"gelu", Activation::gelu},
    {"gelu_accurate", Activation::gelu_tanh},
    {"gelu_fast", Activation::gelu_tanh},
    {"gelu_new", Activation::gelu_tanh},
    {"gelu_python", Activation::gelu},
    {"gelu_python_tanh", Activation::gelu_tanh},
    {"gelu_pytorch_tanh", Activation::gelu_tanh},
    {"identity", Activation::identity},
    {"leaky_relu", Activation::leaky_relu},
    {"linear", Activation::identity},
    {"mish", Activation::mish},
    {"quick_gelu", Activation::quick_gelu},
    {"relu", Activation::relu},
    {"relu2", Activation::relu_squared},
    {"relu6", Activation::relu6},
    {"relu_squared", Activation::relu_squared},
    {"sigmoid", Activation::sigmoid},
    {"silu", Activation::silu},
    {"swish", Activation::silu},
    {"tanh", Activation::tanh},
}};

const Activation* find_activation(const std::string& name) {
  for (const auto& [known, activation] : kActivations)
    if (known == name) return &activation;
  return nullptr;
}

}  // namespace

bool is_known_activation(const std::string& name) { return find_activation(name) != nullptr; }

Activation activation_named(const std::string& name) {
  if (const Activation* const found = find_activation(name)) return *found;
  std::vector<std::string> known;
  for (const auto& entry : kActivations) known.emplace_back(entry.first);
  throw InputError(fmt::format("activation '{}' is not known{}", name, suggestion(name, known)));
}

}  // namespace moefy
