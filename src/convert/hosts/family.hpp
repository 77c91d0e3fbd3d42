#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "../source_model.hpp"

namespace moefy {

/// Factors of Granite's classes; these are what other families compute.
struct Multipliers {
  double embedding = 1;
  double residual = 1;
  double attention = 1;  ///< of q · k; elsewhere head_dim^-0.5
  double logits = 1;     ///< logits are divided by it
};

/// What a dense family needs of the class that is to carry it, read from config.json and tensors.
struct Family {
  std::string model_type;
  std::int64_t num_layers = 0;
  std::int64_t hidden_size = 0;
  std::int64_t intermediate_size = 0;
  bool qkv_bias = false;
  bool o_bias = false;           ///< of the attention's output (Llama with attention_bias)
  bool qk_norm = false;          ///< norms on the heads of q and k (Qwen3)
  double partial_rotary = 1;     ///< share of each head that is rotated (Phi-4-mini)
  bool fused_qkv = false;        ///< one qkv_proj (Phi-3)
  bool offset_norms = false;     ///< norms multiply by 1 + weight, embeddings by sqrt(H) (Gemma)
  bool has_multipliers = false;  ///< values of its own below (Granite)
  Multipliers multipliers;
  bool tied_embeddings = false;
  std::optional<std::int64_t> sliding_window;
  std::vector<std::int64_t> full_layers;  ///< layers without the window, if there is one
  /// Why no MoE host can carry it; empty: some can.
  std::vector<std::string> obstacles;
  /// JSON text: the keys that every Llama-like host reads in the same way, and their values.
  std::string common_config;
};

Family examine_family(const SourceModel& source);

}  // namespace moefy
