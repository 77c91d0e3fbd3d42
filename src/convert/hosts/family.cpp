#include "family.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>
#include <string_view>

#include "moefy/core/error.hpp"

namespace moefy {

namespace {

using Json = nlohmann::ordered_json;

/// Values that a family's class takes where config.json is silent. They are written out, because
/// the host's class has other defaults.
struct Defaults {
  std::string_view model_type;
  std::int64_t max_positions;
  double rms_norm_eps;
  std::string_view activation;
  std::string_view token_ids;  ///< JSON: bos, eos, pad
  bool tied = false;
};
constexpr std::array kFamilies = {
    Defaults{"llama", 2048, 1e-6, "silu",
             R"({"bos_token_id":1,"eos_token_id":2,"pad_token_id":null})"},
    Defaults{"mistral", 131072, 1e-6, "silu",
             R"({"bos_token_id":1,"eos_token_id":2,"pad_token_id":null})"},
    Defaults{"qwen2", 32768, 1e-6, "silu",
             R"({"bos_token_id":null,"eos_token_id":null,"pad_token_id":null})"},
    Defaults{"qwen3", 32768, 1e-6, "silu",
             R"({"bos_token_id":null,"eos_token_id":null,"pad_token_id":null})"},
    Defaults{"phi3", 4096, 1e-5, "silu",
             R"({"bos_token_id":1,"eos_token_id":32000,"pad_token_id":32000})"},
    Defaults{"granite", 2048, 1e-6, "silu",
             R"({"bos_token_id":1,"eos_token_id":2,"pad_token_id":null})"},
    Defaults{"gemma", 8192, 1e-6, "gelu_pytorch_tanh",
             R"({"bos_token_id":2,"eos_token_id":1,"pad_token_id":0})", true},
};

/// Families known to need what no host here has.
constexpr std::array<std::pair<std::string_view, std::string_view>, 7> kWithoutHost = {{
    {"gemma2", "its extra norms and soft caps have no place in any MoE class"},
    {"gemma3_text", "its extra norms have no place in any MoE class"},
    {"gemma3", "its extra norms have no place in any MoE class"},
    {"gpt2", "no MoE class has its kind of block"},
    {"opt", "no MoE class has its kind of block"},
    {"bert", "no MoE class has its kind of block"},
    {"t5", "no MoE class has its kind of block"},
}};

/// What follows "model.layers.N." in a tensor's name; empty if it begins otherwise.
std::string_view name_in_layer(std::string_view name) {
  constexpr std::string_view kPrefix = "model.layers.";
  if (!name.starts_with(kPrefix)) return {};
  name.remove_prefix(kPrefix.size());
  const std::size_t digits = name.find_first_not_of("0123456789");
  if (digits == 0 || digits == std::string_view::npos || name[digits] != '.') return {};
  return name.substr(digits + 1);
}

/// The non-FFN tensors that the Llama-like MoE classes have.
bool is_backbone_name(std::string_view name, const Family& family) {
  constexpr std::array<std::string_view, 3> kOutside = {"model.embed_tokens.weight",
                                                        "model.norm.weight", "lm_head.weight"};
  constexpr std::array<std::string_view, 7> kInside = {
      "input_layernorm.weight",       "post_attention_layernorm.weight", "self_attn.q_proj.weight",
      "self_attn.k_proj.weight",      "self_attn.v_proj.weight",         "self_attn.o_proj.weight",
      "self_attn.rotary_emb.inv_freq"};
  constexpr std::array<std::string_view, 3> kBiases = {
      "self_attn.q_proj.bias", "self_attn.k_proj.bias", "self_attn.v_proj.bias"};
  constexpr std::array<std::string_view, 2> kNorms = {"self_attn.q_norm.weight",
                                                      "self_attn.k_norm.weight"};
  const std::string_view inside = name_in_layer(name);
  const auto among = [](const auto& names, std::string_view text) {
    return std::ranges::find(names, text) != names.end();
  };
  return among(kOutside, name) || among(kInside, inside) ||
         (family.qkv_bias && among(kBiases, inside)) ||
         (family.o_bias && inside == "self_attn.o_proj.bias") ||
         (family.qk_norm && among(kNorms, inside)) ||
         (family.fused_qkv && inside == "self_attn.qkv_proj.weight");
}

/// Reads config.json and tensors of one model.
class Examiner {
 public:
  explicit Examiner(const SourceModel& source)
      : source_(source), config_(Json::parse(source.config_text)) {}
  Family run();

 private:
  bool find_defaults();
  void tensors();
  void attention_shape();
  void window();
  void rotary();
  void multipliers();
  void remaining();

  bool has(const char* key) const { return config_.contains(key) && !config_[key].is_null(); }
  std::int64_t integer(const char* key, std::int64_t otherwise) const {
    return has(key) && config_[key].is_number_integer() ? config_[key].get<std::int64_t>()
                                                        : otherwise;
  }
  double number(const char* key, double otherwise) const {
    return has(key) && config_[key].is_number() ? config_[key].get<double>() : otherwise;
  }
  void obstacle(std::string text) { family_.obstacles.push_back(std::move(text)); }

  const SourceModel& source_;
  const Json config_;
  const Defaults* defaults_ = nullptr;
  Family family_;
  Json common_ = Json::object();
};

Family Examiner::run() {
  if (config_.contains("model_type") && config_["model_type"].is_string())
    family_.model_type = config_["model_type"];
  if (!find_defaults()) return family_;
  tensors();
  if (!family_.obstacles.empty()) return family_;
  attention_shape();
  window();
  rotary();
  multipliers();
  remaining();
  family_.common_config = common_.dump();
  return family_;
}

bool Examiner::find_defaults() {
  for (const Defaults& defaults : kFamilies)
    if (defaults.model_type == family_.model_type) defaults_ = &defaults;
  if (defaults_) return true;
  for (const auto& [type, reason] : kWithoutHost)
    if (type == family_.model_type) obstacle(fmt::format("family {}: {}", type, reason));
  if (family_.obstacles.empty())
    obstacle(fmt::format("family '{}' is not known to fit an MoE class", family_.model_type));
  return false;
}

void Examiner::tensors() {
  family_.fused_qkv = family_.model_type == "phi3";
  family_.qk_norm = family_.model_type == "qwen3";
  family_.offset_norms = family_.model_type == "gemma";
  std::vector<bool> is_ffn(source_.tensors.size(), false);
  for (const LayerInfo& layer : source_.layers) {
    if (!layer.name.ends_with(".mlp") || !layer.name.starts_with("model.layers."))
      return obstacle(fmt::format("layer '{}' is not named as in Llama-like models", layer.name));
    if (!layer.gated() || !layer.find(FfnRole::down))
      return obstacle(
          fmt::format("layer '{}' is not gated; MoE hosts have gated experts only", layer.name));
    for (const FfnTensor& tensor : layer.tensors) {
      is_ffn[source_.at(tensor.tensor)] = true;
      if (source_.tensors[source_.at(tensor.tensor)].spec.shape.size() == 1)
        return obstacle(fmt::format("FFN bias '{}' has no place in an MoE class", tensor.tensor));
    }
  }
  for (const SourceModel::Tensor& tensor : source_.tensors) {
    if (tensor.spec.name.ends_with(".self_attn.q_proj.bias")) family_.qkv_bias = true;
    if (tensor.spec.name.ends_with(".self_attn.o_proj.bias")) family_.o_bias = true;
  }
  for (std::size_t i = 0; i < is_ffn.size(); ++i) {
    const std::string& name = source_.tensors[i].spec.name;
    if (!is_ffn[i] && !is_backbone_name(name, family_))
      return obstacle(fmt::format("tensor '{}' has no place in an MoE class", name));
  }
}

void Examiner::attention_shape() {
  const LayerInfo& first = source_.layers.front();
  family_.num_layers = static_cast<std::int64_t>(source_.layers.size());
  family_.hidden_size = first.hidden_size;
  family_.intermediate_size = first.num_neurons;
  const std::int64_t heads = integer("num_attention_heads", 0);
  if (heads < 1) return obstacle("config.json has no num_attention_heads");
  const std::ptrdiff_t output = source_.find("model.layers.0.self_attn.o_proj.weight");
  const std::ptrdiff_t embedding = source_.find("model.embed_tokens.weight");
  if (output < 0 || embedding < 0) return obstacle("o_proj of layer 0 or embed_tokens is missing");
  const auto shape = [&](std::ptrdiff_t index) {
    return source_.tensors[static_cast<std::size_t>(index)].spec.shape;
  };
  if (shape(output).size() != 2 || shape(output)[1] % heads != 0 || shape(embedding).size() != 2)
    return obstacle("the attention tensors do not fit num_attention_heads");
  const std::int64_t head_dim = shape(output)[1] / heads;
  std::int64_t kv_rows = 0;
  const std::ptrdiff_t key = source_.find("model.layers.0.self_attn.k_proj.weight");
  const std::ptrdiff_t fused = source_.find("model.layers.0.self_attn.qkv_proj.weight");
  if (key >= 0) kv_rows = shape(key)[0];
  if (fused >= 0) kv_rows = (shape(fused)[0] - shape(output)[1]) / 2;
  if (kv_rows < head_dim || kv_rows % head_dim != 0)
    return obstacle("k_proj does not fit the head dimension");

  common_["hidden_size"] = family_.hidden_size;
  common_["num_hidden_layers"] = family_.num_layers;
  common_["num_attention_heads"] = heads;
  common_["num_key_value_heads"] = kv_rows / head_dim;
  common_["head_dim"] = head_dim;
  family_.multipliers.attention = std::pow(static_cast<double>(head_dim), -0.5);
  common_["vocab_size"] = shape(embedding)[0];
}

void Examiner::window() {
  const std::string& type = family_.model_type;
  const bool is_qwen = type == "qwen2" || type == "qwen3";
  if (is_qwen && !(has("use_sliding_window") && config_["use_sliding_window"] == true)) return;
  if (type == "gemma" || type == "llama") return;
  // MistralConfig's own default is a window of 4096; an explicit null switches it off.
  const std::int64_t otherwise =
      (type == "mistral" || is_qwen) && !config_.contains("sliding_window") ? 4096 : 0;
  const std::int64_t window = integer("sliding_window", otherwise);
  if (window <= 0) return;
  family_.sliding_window = window;
  if (has("layer_types") && config_["layer_types"].is_array()) {
    for (std::size_t i = 0; i < config_["layer_types"].size(); ++i)
      if (config_["layer_types"][i] != "sliding_attention")
        family_.full_layers.push_back(static_cast<std::int64_t>(i));
  } else if (is_qwen) {
    const std::int64_t first = std::min(integer("max_window_layers", 28), family_.num_layers);
    for (std::int64_t i = 0; i < first; ++i) family_.full_layers.push_back(i);
  }
}

void Examiner::rotary() {
  Json rope = has("rope_parameters") ? config_["rope_parameters"] : Json();
  const Json scaling = has("rope_scaling") ? config_["rope_scaling"] : rope;
  std::string kind = "default";
  if (scaling.is_object())
    for (const char* key : {"type", "rope_type"})
      if (scaling.contains(key) && scaling[key].is_string()) kind = scaling[key];
  constexpr std::array<std::string_view, 5> kShared = {"default", "linear", "dynamic", "yarn",
                                                       "llama3"};
  const bool plain_only = family_.model_type == "phi3" || family_.model_type == "gemma";
  if (std::ranges::find(kShared, kind) == kShared.end() || (plain_only && kind != "default"))
    obstacle(fmt::format("rope scaling '{}' is not carried by an MoE class", kind));
  for (const Json* place : {&config_, static_cast<const Json*>(&rope)})
    if (place->is_object() && place->contains("partial_rotary_factor") &&
        (*place)["partial_rotary_factor"].is_number())
      family_.partial_rotary = (*place)["partial_rotary_factor"];
  if (rope.is_object()) {
    if (!rope.contains("rope_theta")) rope["rope_theta"] = config_.value("rope_theta", 10000.0);
    common_["rope_parameters"] = rope;
    return;
  }
  // The older spelling is kept: both generations of transformers read it.
  common_["rope_theta"] = has("rope_theta") ? config_["rope_theta"] : Json(10000.0);
  common_["rope_scaling"] = has("rope_scaling") ? config_["rope_scaling"] : Json();
}

void Examiner::multipliers() {
  Multipliers& values = family_.multipliers;
  if (family_.offset_norms) values.embedding = std::sqrt(static_cast<double>(family_.hidden_size));
  if (family_.model_type == "granite") {
    family_.has_multipliers = true;
    values = {number("embedding_multiplier", 1), number("residual_multiplier", 1),
              number("attention_multiplier", 1), number("logits_scaling", 1)};
    return;
  }
  for (const char* key : {"embedding_multiplier", "residual_multiplier", "attention_multiplier",
                          "logits_scaling", "attn_logit_softcapping", "final_logit_softcapping"})
    if (has(key) && config_[key] != 1.0)
      obstacle(fmt::format("config.json's {} is not carried by an MoE class", key));
}

void Examiner::remaining() {
  const std::string activation = source_.layers.front().activation;
  common_["hidden_act"] = family_.offset_norms ? std::string(defaults_->activation) : activation;
  common_["max_position_embeddings"] = integer("max_position_embeddings", defaults_->max_positions);
  common_["rms_norm_eps"] =
      has("rms_norm_eps") ? config_["rms_norm_eps"] : Json(defaults_->rms_norm_eps);
  family_.tied_embeddings =
      has("tie_word_embeddings") ? config_["tie_word_embeddings"] == true : defaults_->tied;
  // Gemma's head keeps the embedding as it was; the embedding itself does not unless the class
  // multiplies it.
  common_["tie_word_embeddings"] = family_.tied_embeddings && !family_.offset_norms;
  const Json ids = Json::parse(defaults_->token_ids);
  for (const char* key : {"bos_token_id", "eos_token_id", "pad_token_id"})
    common_[key] = config_.contains(key) ? config_[key] : ids[key];
  for (const char* key : {"attention_dropout", "initializer_range", "use_cache", "dtype",
                          "torch_dtype", "transformers_version"})
    if (has(key)) common_[key] = config_[key];
}

}  // namespace

Family examine_family(const SourceModel& source) {
  try {
    require(!source.layers.empty(), "a model has layers");
    return Examiner(source).run();
  } catch (const nlohmann::json::exception& error) {
    throw InputError(fmt::format("config.json: {}", error.what()));
  }
}

}  // namespace moefy
