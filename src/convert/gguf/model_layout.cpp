#include "model_layout.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "moefy/convert/gguf.hpp"
#include "moefy/core/error.hpp"

namespace moefy::gguf {

namespace {

using nlohmann::json;

constexpr std::uint32_t kSigmoidGating = 2;

const char* architecture_of(const std::string& model_type) {
  if (model_type == "llama" || model_type == "mistral" || model_type == "mixtral") return "llama";
  if (model_type == "qwen2_moe") return "qwen2moe";
  return model_type == "glm4_moe" ? "glm4moe" : nullptr;
}

/// The config of a stock model, with what may stand in several places found.
class Config {
 public:
  Config(const std::string& text, std::string place) : place_(std::move(place)) {
    json_ = json::parse(text, nullptr, false);
    if (!json_.is_object()) throw InputError(place_ + ": config.json is no JSON object");
  }

  std::string model_type() const { return json_.value("model_type", ""); }
  [[noreturn]] void refuse(const std::string& why) const {
    throw UsageError(fmt::format("--gguf: {}: {}", place_, why));
  }

  bool has(const char* key) const { return json_.contains(key) && !json_[key].is_null(); }
  std::int64_t integer(const char* key) const {
    if (!has(key) || !json_[key].is_number_integer())
      throw InputError(fmt::format("{}: config.json: '{}' is no whole number", place_, key));
    return json_[key];
  }
  std::int64_t integer_or(const char* key, std::int64_t otherwise) const {
    return has(key) ? integer(key) : otherwise;
  }
  double number_or(const char* key, double otherwise) const {
    return has(key) && json_[key].is_number() ? json_[key].get<double>() : otherwise;
  }
  bool flag(const char* key) const { return has(key) && json_[key].is_boolean() && json_[key]; }
  bool is_empty_list(const char* key) const {
    return !has(key) || (json_[key].is_array() && json_[key].empty());
  }

  std::int64_t head_dim() const {
    return integer_or("head_dim", integer("hidden_size") / integer("num_attention_heads"));
  }
  double rope(const char* key, double otherwise) const {
    if (has("rope_parameters") && json_["rope_parameters"].contains(key))
      return json_["rope_parameters"][key];
    return number_or(key, otherwise);
  }
  std::string rope_type() const {
    for (const char* place : {"rope_parameters", "rope_scaling"}) {
      if (!has(place)) continue;
      for (const char* key : {"rope_type", "type"})
        if (json_[place].contains(key)) return json_[place][key];
    }
    return "default";
  }

 private:
  json json_;
  std::string place_;
};

/// UsageError for what no key of the architecture can say.
void check_features(const Config& config) {
  const std::string type = config.model_type();
  if (!architecture_of(type))
    config.refuse(
        fmt::format("llama.cpp's file is written for the classes llama, mistral (host "
                    "dense), mixtral, qwen2_moe and glm4_moe, not for {}; choose one with "
                    "--host",
                    type));
  if (config.rope_type() != "default")
    config.refuse(fmt::format("its rotary embedding is scaled ({}), which is not written yet",
                              config.rope_type()));
  if (type == "qwen2_moe" ? config.flag("use_sliding_window") : config.has("sliding_window"))
    config.refuse("llama.cpp knows no sliding window for this architecture");
  if (type == "qwen2_moe" && config.flag("norm_topk_prob"))
    config.refuse(
        "llama.cpp's qwen2moe does not normalise the chosen experts' weights; take --host "
        "glm4-moe, or as many experts as a power of two");
  if (type == "qwen2_moe" && !config.is_empty_list("mlp_only_layers"))
    config.refuse("llama.cpp's qwen2moe has no dense layers between the others");
}

void add_keys(const Config& config, const std::string& arch, Metadata& metadata) {
  const auto key = [&](const char* name) { return arch + "." + name; };
  const auto count = [&](const char* name, std::int64_t value) {
    metadata.add(key(name), static_cast<std::uint32_t>(value));
  };
  const std::string type = config.model_type();
  const bool moe = type != "llama" && type != "mistral";
  count("block_count", config.integer("num_hidden_layers"));
  count("context_length", config.integer_or("max_position_embeddings", 2048));
  count("embedding_length", config.integer("hidden_size"));
  count("feed_forward_length", config.integer("intermediate_size"));
  count("attention.head_count", config.integer("num_attention_heads"));
  count("attention.head_count_kv",
        config.integer_or("num_key_value_heads", config.integer("num_attention_heads")));
  count("attention.key_length", config.head_dim());
  count("attention.value_length", config.head_dim());
  metadata.add(key("attention.layer_norm_rms_epsilon"),
               static_cast<float>(config.number_or("rms_norm_eps", 1e-6)));
  metadata.add(key("rope.freq_base"), static_cast<float>(config.rope("rope_theta", 10000.0)));
  const double rotary = config.rope("partial_rotary_factor", 1.0);
  count("rope.dimension_count",
        static_cast<std::int64_t>(rotary * static_cast<double>(config.head_dim())));
  count("vocab_size", config.integer("vocab_size"));
  if (!moe) return;
  const char* experts = type == "mixtral"     ? "num_local_experts"
                        : type == "qwen2_moe" ? "num_experts"
                                              : "n_routed_experts";
  count("expert_count", config.integer(experts));
  count("expert_used_count", config.integer("num_experts_per_tok"));
  if (type == "mixtral") return;
  count("expert_feed_forward_length", config.integer("moe_intermediate_size"));
  if (type == "qwen2_moe") {
    count("expert_shared_feed_forward_length", config.integer("shared_expert_intermediate_size"));
    return;
  }
  count("expert_shared_count", config.integer("n_shared_experts"));
  count("expert_gating_func", kSigmoidGating);
  metadata.add(key("expert_weights_scale"),
               static_cast<float>(config.number_or("routed_scaling_factor", 1.0)));
  metadata.add(key("expert_weights_norm"), config.flag("norm_topk_prob"));
  count("leading_dense_block_count", config.integer_or("first_k_dense_replace", 0));
  count("nextn_predict_layers", 0);
}

/// Collects the tensors under llama.cpp's names.
class Layout {
 public:
  Layout(const Checkpoint& model, const Config& config, std::string arch, const std::string& type)
      : model_(model), config_(config), arch_(std::move(arch)), type_(type) {}

  std::vector<Source> collect() {
    matrix("token_embd.weight", "model.embed_tokens.weight");
    vector("output_norm.weight", "model.norm.weight");
    const bool own_head = model_.find("lm_head.weight") != nullptr;
    // Only the llama architecture takes the embedding where there is no output matrix.
    if (own_head || arch_ != "llama")
      matrix("output.weight", own_head ? "lm_head.weight" : "model.embed_tokens.weight");
    const std::int64_t layers = config_.integer("num_hidden_layers");
    for (std::int64_t layer = 0; layer < layers; ++layer) add_layer(layer);
    return std::move(sources_);
  }

 private:
  void add_layer(std::int64_t layer) {
    from_ = fmt::format("model.layers.{}.", layer);
    to_ = fmt::format("blk.{}.", layer);
    vector(to_ + "attn_norm.weight", from_ + "input_layernorm.weight");
    vector(to_ + (arch_ == "glm4moe" ? "post_attention_norm.weight" : "ffn_norm.weight"),
           from_ + "post_attention_layernorm.weight");
    add_attention();
    if (model_.find(from_ + "mlp.gate_proj.weight")) {
      for (const char* part : {"gate", "up", "down"})
        matrix(to_ + "ffn_" + part + ".weight", from_ + "mlp." + part + "_proj.weight");
    } else {
      add_experts();
    }
  }

  void add_attention() {
    const std::int64_t heads = config_.integer("num_attention_heads");
    const std::int64_t key_heads = config_.integer_or("num_key_value_heads", heads);
    const bool interleaved = arch_ == "llama";
    const std::string attention = from_ + "self_attn.";
    for (const auto& [letter, count] :
         {std::pair{"q", heads}, {"k", key_heads}, {"v", std::int64_t{0}}}) {
      const std::string name = to_ + "attn_" + letter;
      const std::string source = attention + letter + "_proj";
      matrix(name + ".weight", source + ".weight");
      sources_.back().interleaved_heads = interleaved ? count : 0;
      if (model_.find(source + ".bias")) {
        vector(name + ".bias", source + ".bias");
        sources_.back().interleaved_heads = interleaved ? count : 0;
      } else if (arch_ == "qwen2moe") {
        const auto rows = static_cast<std::uint64_t>(model_.at(source + ".weight").shape[0]);
        sources_.push_back({{name + ".bias", {rows}, DType::f32}, {}, 0});
      }
      if (model_.find(attention + letter + "_norm.weight"))
        vector(name + "_norm.weight", attention + letter + "_norm.weight");
    }
    matrix(to_ + "attn_output.weight", attention + "o_proj.weight");
    if (model_.find(attention + "o_proj.bias"))
      vector(to_ + "attn_output.bias", attention + "o_proj.bias");
  }

  void add_experts() {
    const bool mixtral = config_.model_type() == "mixtral";
    const std::string block = from_ + (mixtral ? "block_sparse_moe." : "mlp.");
    router(to_ + "ffn_gate_inp.weight", block + "gate.weight");
    if (model_.find(block + "gate.e_score_correction_bias"))
      vector(to_ + "exp_probs_b.bias", block + "gate.e_score_correction_bias");
    for (const auto& [part, ours, mixtrals] : {std::tuple{"gate", "gate_proj", "w1"},
                                               {"up", "up_proj", "w3"},
                                               {"down", "down_proj", "w2"}})
      stack(to_ + "ffn_" + part + "_exps.weight", block + "experts.",
            fmt::format(".{}.weight", mixtral ? mixtrals : ours));
    for (const char* shared : {"shared_expert.", "shared_experts."})
      for (const char* part : {"gate", "up", "down"}) {
        const std::string name = block + shared + part + "_proj.weight";
        if (const TensorInfo* tensor = model_.find(name); tensor && tensor->num_bytes > 0)
          matrix(to_ + "ffn_" + part + "_shexp.weight", name);
      }
    if (model_.find(block + "shared_expert_gate.weight"))
      vector(to_ + "ffn_gate_inp_shexp.weight", block + "shared_expert_gate.weight");
  }

  DType matrix_type(const TensorInfo& tensor) const {
    if (type_ == "f32") return DType::f32;
    if (type_ == "f16") return DType::f16;
    if (type_ == "bf16") return DType::bf16;
    return tensor.dtype;
  }

  const TensorInfo& at(const std::string& name) const {
    const TensorInfo& tensor = model_.at(name);
    if (tensor.dtype != DType::f32 && tensor.dtype != DType::f16 && tensor.dtype != DType::bf16)
      throw InputError(fmt::format("{}: tensor '{}' is {}; F32, F16 or BF16 is expected",
                                   model_.directory().string(), name, name_of(tensor.dtype)));
    return tensor;
  }

  void add(const std::string& name, const TensorInfo& tensor, std::vector<std::uint64_t> shape,
           DType dtype) {
    sources_.push_back({{name, std::move(shape), dtype}, {&tensor}, 0});
  }

  void matrix(const std::string& name, const std::string& source) {
    const TensorInfo& tensor = at(source);
    add(name, tensor, shape_of(tensor), matrix_type(tensor));
  }

  void router(const std::string& name, const std::string& source) {
    const TensorInfo& tensor = at(source);
    add(name, tensor, shape_of(tensor), DType::f32);
  }

  /// One dimension, whatever the checkpoint's shape.
  void vector(const std::string& name, const std::string& source) {
    const TensorInfo& tensor = at(source);
    add(name, tensor, {tensor.num_bytes / size_of(tensor.dtype)}, DType::f32);
  }

  void stack(const std::string& name, const std::string& prefix, const std::string& suffix) {
    Source source;
    for (std::int64_t e = 0;; ++e) {
      const std::string expert = prefix + std::to_string(e) + suffix;
      if (!model_.find(expert)) break;
      source.tensors.push_back(&at(expert));
    }
    if (source.tensors.empty())
      config_.refuse(fmt::format("there are no tensors {}0{}: only the classic layout is written",
                                 prefix, suffix));
    source.spec = {name, shape_of(*source.tensors[0]), matrix_type(*source.tensors[0])};
    source.spec.shape.insert(source.spec.shape.begin(), source.tensors.size());
    sources_.push_back(std::move(source));
  }

  static std::vector<std::uint64_t> shape_of(const TensorInfo& tensor) {
    return {tensor.shape.begin(), tensor.shape.end()};
  }

  const Checkpoint& model_;
  const Config& config_;
  std::string arch_;
  std::string type_;
  std::string from_, to_;  ///< prefixes of the layer's names
  std::vector<Source> sources_;
};

/// llama.cpp's number for what most of the file is in.
std::uint32_t file_type(std::span<const Source> tensors) {
  const DType dtype = tensors.front().spec.dtype;
  return dtype == DType::f32 ? 0 : dtype == DType::f16 ? 1 : 32;
}

}  // namespace

ModelLayout lay_out_model(const Checkpoint& model, const std::string& type, Metadata& metadata) {
  const Config config(model.config_text(), model.directory().string());
  check_features(config);
  ModelLayout layout;
  layout.architecture = architecture_of(config.model_type());
  layout.vocab_size = config.integer("vocab_size");
  layout.tensors = Layout(model, config, layout.architecture, type).collect();
  metadata.add("general.architecture", layout.architecture);
  metadata.add("general.name", model.directory().filename().string());
  metadata.add("general.file_type", file_type(layout.tensors));
  add_keys(config, layout.architecture, metadata);
  return layout;
}

}  // namespace moefy::gguf

namespace moefy {

void check_gguf(const std::string& config_text, const std::string& place) {
  gguf::check_features(gguf::Config(config_text, place));
}

}  // namespace moefy
