#include "support/tiny_checkpoint.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <fstream>
#include <sstream>
#include <stdexcept>

#include "moefy/core/hash.hpp"
#include "moefy/core/random.hpp"

namespace moefy::test {

namespace {

using Shape = std::vector<std::int64_t>;

/// Collects the tensors of one model.
class Builder {
 public:
  explicit Builder(const TinySize& size) : size_(size) {}

  void add(const std::string& name, Shape shape) {
    tensors_.push_back(random_tensor(name, size_.dtype, std::move(shape), size_.seed));
  }
  /// A linear layer [out, in], with bias [out] if wanted.
  void linear(const std::string& name, std::int64_t out, std::int64_t in, bool bias = false) {
    add(name + ".weight", {out, in});
    if (bias) add(name + ".bias", {out});
  }
  std::vector<TinyTensor> take() { return std::move(tensors_); }

 private:
  TinySize size_;
  std::vector<TinyTensor> tensors_;
};

constexpr std::int64_t kVocabulary = 32;

std::string common_config(const std::string& model_type, const std::string& architecture) {
  return fmt::format(R"("architectures": ["{}"], "model_type": "{}", "vocab_size": {},
 "max_position_embeddings": 64, "tie_word_embeddings": false, "dtype": "float32", )",
                     architecture, model_type, kVocabulary);
}

/// Two heads, one of them for keys and values.
TinyModel llama_like(const std::string& type, const TinySize& size) {
  const std::int64_t head = size.hidden / 2;
  const bool gemma = type.starts_with("gemma");
  const bool extra_norms = type == "gemma2" || type == "gemma3_text";
  const bool query_norms = type == "qwen3" || type == "gemma3_text";
  Builder builder(size);
  builder.add("model.embed_tokens.weight", {kVocabulary, size.hidden});
  for (std::int64_t i = 0; i < size.layers; ++i) {
    const std::string layer = fmt::format("model.layers.{}.", i);
    builder.add(layer + "input_layernorm.weight", {size.hidden});
    builder.add(layer + "post_attention_layernorm.weight", {size.hidden});
    if (extra_norms) {
      builder.add(layer + "pre_feedforward_layernorm.weight", {size.hidden});
      builder.add(layer + "post_feedforward_layernorm.weight", {size.hidden});
    }
    builder.linear(layer + "self_attn.q_proj", 2 * head, size.hidden, type == "qwen2");
    builder.linear(layer + "self_attn.k_proj", head, size.hidden, type == "qwen2");
    builder.linear(layer + "self_attn.v_proj", head, size.hidden, type == "qwen2");
    builder.linear(layer + "self_attn.o_proj", size.hidden, 2 * head);
    if (query_norms) {
      builder.add(layer + "self_attn.q_norm.weight", {head});
      builder.add(layer + "self_attn.k_norm.weight", {head});
    }
    builder.linear(layer + "mlp.gate_proj", size.neurons, size.hidden);
    builder.linear(layer + "mlp.up_proj", size.neurons, size.hidden);
    builder.linear(layer + "mlp.down_proj", size.hidden, size.neurons);
  }
  builder.add("model.norm.weight", {size.hidden});
  builder.add("lm_head.weight", {kVocabulary, size.hidden});

  const std::map<std::string, std::string> classes{
      {"llama", "LlamaForCausalLM"},     {"mistral", "MistralForCausalLM"},
      {"qwen2", "Qwen2ForCausalLM"},     {"qwen3", "Qwen3ForCausalLM"},
      {"gemma", "GemmaForCausalLM"},     {"gemma2", "Gemma2ForCausalLM"},
      {"granite", "GraniteForCausalLM"}, {"gemma3_text", "Gemma3ForCausalLM"}};
  const std::string activation =
      gemma ? (type == "gemma" ? R"("hidden_act": "gelu_pytorch_tanh")"
                               : R"("hidden_activation": "gelu_pytorch_tanh")")
            : R"("hidden_act": "silu")";
  std::string config = common_config(type, classes.at(type)).insert(0, 1, '{');
  config += fmt::format(
      R"("hidden_size": {}, "intermediate_size": {}, "num_hidden_layers": {},
 "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": {}, "rms_norm_eps": 1e-06,
 "rope_theta": 10000.0, {}}})",
      size.hidden, size.neurons, size.layers, head, activation);
  return {config, builder.take()};
}

TinyModel phi3(const TinySize& size) {
  Builder builder(size);
  builder.add("model.embed_tokens.weight", {kVocabulary, size.hidden});
  for (std::int64_t i = 0; i < size.layers; ++i) {
    const std::string layer = fmt::format("model.layers.{}.mlp.", i);
    builder.linear(layer + "gate_up_proj", 2 * size.neurons, size.hidden);
    builder.linear(layer + "down_proj", size.hidden, size.neurons);
  }
  return {
      fmt::format(R"({{{}"hidden_size": {}, "intermediate_size": {}, "num_hidden_layers": {},
 "hidden_act": "silu"}})",
                  common_config("phi3", "Phi3ForCausalLM"), size.hidden, size.neurons, size.layers),
      builder.take()};
}

/// Conv1D matrices stand the other way round than linear ones: [in, out].
TinyModel gpt2(const TinySize& size) {
  Builder builder(size);
  builder.add("transformer.wte.weight", {kVocabulary, size.hidden});
  for (std::int64_t i = 0; i < size.layers; ++i) {
    const std::string layer = fmt::format("transformer.h.{}.mlp.", i);
    builder.add(layer + "c_fc.weight", {size.hidden, size.neurons});
    builder.add(layer + "c_fc.bias", {size.neurons});
    builder.add(layer + "c_proj.weight", {size.neurons, size.hidden});
    builder.add(layer + "c_proj.bias", {size.hidden});
  }
  return {
      fmt::format(R"({{{}"n_embd": {}, "n_inner": {}, "n_layer": {}, "n_head": 2,
 "activation_function": "gelu_new"}})",
                  common_config("gpt2", "GPT2LMHeadModel"), size.hidden, size.neurons, size.layers),
      builder.take()};
}

/// Families of one up and one down linear layer with biases.
struct PlainFamily {
  std::string type;
  std::string architecture;
  std::string embedding;
  std::string prefix;
  std::string up;
  std::string down;
  std::string width_key;
  std::string activation;
};

TinyModel plain(const PlainFamily& family, const TinySize& size) {
  Builder builder(size);
  builder.add(family.embedding, {kVocabulary, size.hidden});
  for (std::int64_t i = 0; i < size.layers; ++i) {
    const std::string layer = fmt::format("{}{}.", family.prefix, i);
    builder.linear(layer + family.up, size.neurons, size.hidden, true);
    builder.linear(layer + family.down, size.hidden, size.neurons, true);
  }
  return {fmt::format(R"({{{}"hidden_size": {}, "{}": {}, "num_hidden_layers": {},
 "num_attention_heads": 2, {}}})",
                      common_config(family.type, family.architecture), size.hidden,
                      family.width_key, size.neurons, size.layers, family.activation),
          builder.take()};
}

/// One decoder layer more than encoder layers, so that the two counts cannot be mixed up.
TinyModel t5(bool gated, const TinySize& size) {
  Builder builder(size);
  builder.add("shared.weight", {kVocabulary, size.hidden});
  const auto stack = [&](const std::string& name, std::int64_t layers, int sub_block) {
    for (std::int64_t i = 0; i < layers; ++i) {
      const std::string layer =
          fmt::format("{}.block.{}.layer.{}.DenseReluDense.", name, i, sub_block);
      for (const char* wi : gated ? std::vector{"wi_0", "wi_1"} : std::vector{"wi"})
        builder.linear(layer + wi, size.neurons, size.hidden);
      builder.linear(layer + "wo", size.hidden, size.neurons);
    }
  };
  stack("encoder", size.layers, 1);
  stack("decoder", size.layers + 1, 2);
  return {fmt::format(R"({{{}"d_model": {}, "d_ff": {}, "num_layers": {}, "num_decoder_layers": {},
 "num_heads": 2, "d_kv": 8, "feed_forward_proj": "{}"}})",
                      common_config("t5", "T5ForConditionalGeneration"), size.hidden, size.neurons,
                      size.layers, size.layers + 1, gated ? "gated-gelu" : "relu"),
          builder.take()};
}

}  // namespace

TinyTensor& TinyModel::at(const std::string& name) {
  for (TinyTensor& tensor : tensors)
    if (tensor.name == name) return tensor;
  throw std::out_of_range("no tensor " + name);
}

void TinyModel::erase(const std::string& name) {
  std::erase_if(tensors, [&](const TinyTensor& tensor) { return tensor.name == name; });
}

TinyTensor random_tensor(std::string name, DType dtype, std::vector<std::int64_t> shape,
                         std::uint64_t seed) {
  std::size_t count = 1;
  for (const std::int64_t extent : shape) count *= static_cast<std::size_t>(extent);
  const Digest key = hash_bytes(std::as_bytes(std::span(name)));
  RandomStream stream(seed, key.low, RandomPurpose::verification);
  std::vector<float> values(count);
  for (float& value : values) value = 0.1F * stream.next_normal();
  TinyTensor tensor{std::move(name), dtype, std::move(shape), {}};
  tensor.bytes.resize(count * size_of(dtype));
  narrow(dtype, values, tensor.bytes);
  return tensor;
}

TinyModel tiny_model(const std::string& family, const TinySize& size) {
  static const std::vector<std::string> llamas{"llama", "mistral", "qwen2",       "qwen3",
                                               "gemma", "gemma2",  "gemma3_text", "granite"};
  static const std::vector<PlainFamily> plains{
      {"opt", "OPTForCausalLM", "model.decoder.embed_tokens.weight", "model.decoder.layers.", "fc1",
       "fc2", "ffn_dim", R"("activation_function": "relu")"},
      {"gpt_neox", "GPTNeoXForCausalLM", "gpt_neox.embed_in.weight", "gpt_neox.layers.",
       "mlp.dense_h_to_4h", "mlp.dense_4h_to_h", "intermediate_size", R"("hidden_act": "gelu")"},
      {"bert", "BertForMaskedLM", "bert.embeddings.word_embeddings.weight", "bert.encoder.layer.",
       "intermediate.dense", "output.dense", "intermediate_size", R"("hidden_act": "gelu")"}};
  if (std::find(llamas.begin(), llamas.end(), family) != llamas.end())
    return llama_like(family, size);
  for (const PlainFamily& known : plains)
    if (known.type == family) return plain(known, size);
  if (family == "phi3") return phi3(size);
  if (family == "gpt2") return gpt2(size);
  if (family == "t5" || family == "t5-gated") return t5(family == "t5-gated", size);
  throw std::invalid_argument("no tiny model of family " + family);
}

std::string safetensors_file(const std::string& header, std::size_t data_bytes) {
  const std::uint64_t length = header.size();
  std::string file(reinterpret_cast<const char*>(&length), sizeof length);
  file += header;
  file.append(data_bytes, '\1');
  return file;
}

std::string safetensors_file(const std::vector<TinyTensor>& tensors,
                             const std::map<std::string, std::string>& metadata) {
  std::vector<std::string> entries;
  std::string data;
  if (!metadata.empty()) {
    std::vector<std::string> pairs;
    for (const auto& [key, value] : metadata)
      pairs.push_back(fmt::format(R"("{}":"{}")", key, value));
    entries.push_back(fmt::format(R"("__metadata__":{{{}}})", fmt::join(pairs, ",")));
  }
  for (const TinyTensor& tensor : tensors) {
    const std::size_t begin = data.size();
    data.append(reinterpret_cast<const char*>(tensor.bytes.data()), tensor.bytes.size());
    entries.push_back(fmt::format(R"("{}":{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}})",
                                  tensor.name, name_of(tensor.dtype), fmt::join(tensor.shape, ","),
                                  begin, data.size()));
  }
  return safetensors_file(fmt::format("{{{}}}", fmt::join(entries, ",")), 0) + data;
}

void write_checkpoint(const TinyModel& model, const std::filesystem::path& directory,
                      std::size_t num_shards) {
  std::filesystem::create_directories(directory);
  write_text(directory / "config.json", model.config);
  if (num_shards <= 1) {
    write_text(directory / "model.safetensors",
               safetensors_file(model.tensors, {{"format", "pt"}}));
    return;
  }
  std::vector<std::string> entries;
  for (std::size_t shard = 0; shard < num_shards; ++shard) {
    const std::string name = fmt::format("model-{:05}-of-{:05}.safetensors", shard + 1, num_shards);
    std::vector<TinyTensor> tensors;
    for (std::size_t i = shard; i < model.tensors.size(); i += num_shards) {
      tensors.push_back(model.tensors[i]);
      entries.push_back(fmt::format(R"("{}": "{}")", model.tensors[i].name, name));
    }
    write_text(directory / name, safetensors_file(tensors, {{"format", "pt"}}));
  }
  write_text(
      directory / "model.safetensors.index.json",
      fmt::format(R"({{"metadata": {{}}, "weight_map": {{{}}}}})", fmt::join(entries, ", ")));
}

void write_text(const std::filesystem::path& path, const std::string& text) {
  std::ofstream stream(path, std::ios::binary);
  stream.write(text.data(), static_cast<std::streamsize>(text.size()));
  if (!stream.flush()) throw std::runtime_error("cannot write " + path.string());
}

std::string read_text(const std::filesystem::path& path) {
  std::ifstream stream(path, std::ios::binary);
  std::ostringstream text;
  text << stream.rdbuf();
  if (!stream) throw std::runtime_error("cannot read " + path.string());
  return text.str();
}

}  // namespace moefy::test
