#pragma once

#include <span>
#include <string>

#include "../plan.hpp"
#include "family.hpp"

namespace moefy {

/// Names of a host's tensors inside a layer, behind "model.layers.N.".
struct ExpertNames {
  std::string router;   ///< "mlp.gate.weight"
  std::string experts;  ///< "mlp.experts": followed by .e.gate; "": all experts in one tensor only
  std::string gate;     ///< "gate_proj.weight"
  std::string up;
  std::string down;
  std::string fused_gate_up;  ///< "mlp.experts.gate_up_proj": of all experts
  std::string fused_down;
};

/// Of Qwen's classes and those that follow them.
const ExpertNames& qwen_expert_names();

/// Who multiplies Gemma's embeddings by sqrt(H).
enum class Embeddings {
  multiplied_in_the_file,  ///< the head keeps the plain ones
  multiplied_by_the_class,
};

/// Adds all tensors that are no FFN weights: as they are, Phi-3's qkv_proj cut in three, Gemma's
/// norms and embedding made plain (originals kept).
void add_backbone(ConversionPlan& plan, const Family& family,
                  Embeddings embeddings = Embeddings::multiplied_in_the_file);
/// Names of the three matrices of one expert, whole.
struct GatedNames {
  std::string gate;
  std::string up;
  std::string down;
};

/// Adds the matrices of one list of neurons, `width` wide: routed expert number `list`, whose down
/// projection carries the router's factors, or a shared one (is_shared_list).
void add_list(ConversionPlan& plan, std::size_t layer, std::int64_t list, const GatedNames& names,
              std::span<const std::int32_t> neurons, std::int64_t width);
/// Adds router and routed experts of a layer, in the classic or fused layout.
void add_experts(ConversionPlan& plan, std::size_t layer, const ExpertNames& names);
/// Adds one plain gated FFN for `neurons` of a layer, `width` wide, named `prefix` + gate_proj …
void add_gated(ConversionPlan& plan, std::size_t layer, const std::string& prefix,
               std::span<const std::int32_t> neurons, std::int64_t width, int down_scale_log2);
/// The same with the rows of gate and up in one tensor.
void add_packed_gated(ConversionPlan& plan, std::size_t layer, const std::string& gate_up_name,
                      const std::string& down_name, std::span<const std::int32_t> neurons,
                      std::int64_t width);
/// Adds a layer's FFN tensors as they are.
void add_dense_layer(ConversionPlan& plan, std::size_t layer);
/// "model.layers.N."
std::string layer_prefix(const ConversionPlan& plan, std::size_t layer);

}  // namespace moefy
