#include "softmax_recipe.hpp"

#include <fmt/format.h>

namespace moefy {

void add_softmax_obstacles(const ConversionPlan& plan, bool normalized, Obstacles& found) {
  const ExpertShape& shape = plan.shape;
  if (!normalized && !is_power_of_two(shape.num_experts))
    found.counts.push_back(fmt::format(
        "its factor is the number of experts, and {} is no power of two", shape.num_experts));
  if (normalized) add_top_k_obstacle(plan, found);
}

void add_top_k_obstacle(const ConversionPlan& plan, Obstacles& found) {
  if (!is_power_of_two(plan.shape.top_k))
    found.counts.push_back(
        fmt::format("its factor is top-k, and {} is no power of two", plan.shape.top_k));
}

std::string softmax_reason(const ConversionPlan& plan, bool normalized) {
  return normalized ? fmt::format("top-k {} is a power of two", plan.shape.top_k)
                    : fmt::format("{} experts are a power of two, so that top-k stays editable",
                                  plan.shape.num_experts);
}

}  // namespace moefy
