#include <fmt/format.h>

#include "moefy/core/error.hpp"
#include "moefy/core/text.hpp"
#include "plan.hpp"

namespace moefy {

double ConversionPlan::sum_of_weights() const {
  switch (weighting) {
    case RouterWeighting::softmax_over_all:
      return static_cast<double>(shape.num_experts);
    case RouterWeighting::softmax_over_chosen:
      return static_cast<double>(shape.top_k);
    case RouterWeighting::twice_sigmoid:
    case RouterWeighting::one:
      return 1;
  }
  throw InternalError("unknown weighting");
}

double ConversionPlan::score_factor(std::size_t layer) const {
  if (!results[layer]) return 1;
  if (config.score_scale == "calibrated") return results[layer]->score_scale.value();
  const bool is_softmax = config.gate_scale == "1";
  if (config.score_scale != "auto")
    return parse_real(config.score_scale).value() / (is_softmax ? sum_of_weights() : 1);
  if (!is_softmax || weighting != RouterWeighting::softmax_over_chosen) return 1;
  return static_cast<double>(shape.num_experts) / static_cast<double>(shape.top_k);
}

double ConversionPlan::routed_scale(std::size_t layer) const {
  const bool is_share =
      weighting == RouterWeighting::softmax_over_all ||
      (weighting == RouterWeighting::softmax_over_chosen && config.gate_scale == "1");
  // Shares of all experts are 1 / E each; a softmax over the chosen k that is nearly flat makes
  // each chosen one weigh one whatever k is.
  const double weight = is_share ? sum_of_weights() / static_cast<double>(shape.num_experts) : 1.0;
  return weight * score_factor(layer);
}

void check_score_scale(const ConversionPlan& plan) {
  if (plan.config.score_scale == "auto") return;
  if (plan.config.host == "dense")
    throw UsageError("--score-scale: the dense host has no routed experts; take an MoE host");
  if (plan.config.score_scale != "calibrated") return;
  for (const LayerResult* result : plan.results)
    if (result && !result->score_scale)
      throw UsageError(fmt::format(
          "--score-scale calibrated: the map has no measured scale of layer {}; `moefy calibrate "
          "--score-scale MAP.h5` measures all",
          result->layer_index));
}

void keep_rounded_originals(ConversionPlan& plan) {
  std::size_t rounded = 0;
  for (std::size_t l = 0; l < plan.results.size(); ++l) {
    if (!plan.results[l] || is_exact_factor(plan.folded_score(l))) continue;
    ++rounded;
    if (!plan.config.use_refit)
      plan.originals.push_back(plan.source.at(plan.source.layers[l].find(FfnRole::down)->tensor));
  }
  if (rounded > 0)
    plan.notes.push_back(fmt::format(
        "The score scale of {} layers is no power of two: their down projections are rounded, and "
        "the dense ones are kept in moefy/originals.safetensors.",
        rounded));
}

}  // namespace moefy
