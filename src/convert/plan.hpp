#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "moefy/convert/convert.hpp"
#include "recipe.hpp"
#include "source_model.hpp"

namespace moefy {

/// Sizes that all converted layers share.
struct ExpertShape {
  std::int64_t num_experts = 0;
  std::int64_t num_shared = 0;
  std::int64_t top_k = 0;
  std::int64_t expert_width = 0;  ///< padded
  std::int64_t shared_width = 0;  ///< padded, of all shared experts together
  std::int64_t padding = 0;       ///< zero neurons added, over all layers
};

/// What a host's class makes of the router's logits: an expert's weight.
enum class RouterWeighting {
  softmax_over_all,
  softmax_over_chosen,  ///< over the top-k, which is then fixed
  twice_sigmoid,        ///< each by itself, times routed_scaling_factor 2
  one,                  ///< the router only chooses
};

/// The public functions of convert.hpp read it; plan_conversion fills it once.
class ConversionPlan {
 public:
  SourceModel source;
  std::shared_ptr<const ExpertMap> map;
  ConvertConfig config;

  std::string host;
  std::string recipe;  ///< the host's way of making weights 1, for the manifest
  std::string host_reason;
  bool top_k_editable = false;
  std::string top_k_key = "num_experts_per_tok";  ///< where config.json says it
  /// The expert weights p of the router are multiplied by 2^this, folded into down.
  int routed_scale_log2 = 0;
  RouterWeighting weighting = RouterWeighting::softmax_over_all;
  bool score_in_config = false;  ///< --score-scale stands in config.json and not in down
  ExpertShape shape;
  std::vector<const LayerResult*> results;  ///< by layer; nullptr: stays dense
  std::vector<int> gate_scale_log2;         ///< by layer, 0 where dense
  std::string config_text;                  ///< config.json of the output
  std::vector<OutputTensor> tensors;        ///< in file order
  ShardPlan shards;
  std::vector<std::size_t> first_tensor;         ///< by shard, and the end
  std::vector<std::size_t> originals;            ///< source tensors kept as they were
  std::shared_ptr<const SafetensorsFile> refit;  ///< only where files are written
  std::vector<std::string> notes;

  /// What the router's weights sum to where they are shares: top-k, all experts, or 1 where each
  /// weight is one by itself.
  double sum_of_weights() const;
  /// What --score-scale multiplies a layer's routed experts by, beside the host's own factor that
  /// makes their weights one.
  double score_factor(std::size_t layer) const;
  /// What the routed experts' sum is of the dense one where all are on and the router tells none
  /// from another.
  double routed_scale(std::size_t layer) const;
  /// The part of score_factor that is folded into down.
  double folded_score(std::size_t layer) const { return score_in_config ? 1 : score_factor(layer); }
  /// Whether a role's values come from the refit file.
  bool is_refitted(FfnRole role) const { return config.use_refit && role == FfnRole::down; }
  bool is_moe() const { return shape.num_experts > 0; }
  /// Whether the neurons of a layer may have several places or none.
  bool shares_neurons() const;
};

/// UsageError if --score-scale asks for what the map or the host has not.
void check_score_scale(const ConversionPlan& plan);
/// Keeps the originals of down projections that a score scale has rounded: they cannot be divided
/// back.
void keep_rounded_originals(ConversionPlan& plan);
/// InternalError unless every byte of every source tensor has its place: once, or for experts that
/// share neurons as often as their lists hold it.
void check_coverage(const ConversionPlan& plan);

/// The plan for a described source; plan_conversion and plan_of_output meet here.
std::shared_ptr<const ConversionPlan> make_plan(
    SourceModel source, std::shared_ptr<const ExpertMap> map, const ConvertConfig& config,
    std::shared_ptr<const SafetensorsFile> refit = nullptr);

}  // namespace moefy
