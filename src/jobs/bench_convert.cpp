#include "bench_convert.hpp"

#include <stdlib.h>

#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <numeric>
#include <ostream>
#include <sstream>

#include "machine.hpp"
#include "moefy/checkpoint/writer.hpp"
#include "moefy/core/random.hpp"
#include "moefy/core/text.hpp"
#include "moefy/jobs/convert.hpp"
#include "moefy/jobs/split.hpp"

namespace moefy {

namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr std::int64_t kHidden = 2048;
constexpr std::int64_t kNeurons = 5632;
constexpr std::int64_t kVocabulary = 32000;
constexpr std::int64_t kExperts = 16;

/// A folder of this benchmark that every rank knows and rank 0 removes.
class SharedFolder {
 public:
  explicit SharedFolder(Communicator& comm) : comm_(comm) {
    std::vector<std::byte> name;
    together(comm, [&] {
      if (comm.rank() != 0) return;
      std::string pattern = (fs::temp_directory_path() / "moefy-bench-XXXXXX").string();
      if (!::mkdtemp(pattern.data())) throw IoError(pattern, "make a temporary folder", errno);
      name = to_bytes(pattern);
    });
    comm.broadcast(name);
    path_ = to_text(name);
  }
  ~SharedFolder() {
    std::error_code ignored;
    if (comm_.rank() == 0) fs::remove_all(path_, ignored);
  }
  SharedFolder(const SharedFolder&) = delete;
  SharedFolder& operator=(const SharedFolder&) = delete;
  const fs::path& path() const { return path_; }

 private:
  Communicator& comm_;
  fs::path path_;
};

std::vector<TensorSpec> layer_specs(std::int64_t layer) {
  const std::string prefix = "model.layers." + std::to_string(layer) + ".";
  const auto matrix = [&](const char* name, std::int64_t rows, std::int64_t columns) {
    return TensorSpec{prefix + name + ".weight", DType::bf16, {rows, columns}};
  };
  return {matrix("self_attn.q_proj", kHidden, kHidden),
          matrix("self_attn.k_proj", kHidden, kHidden),
          matrix("self_attn.v_proj", kHidden, kHidden),
          matrix("self_attn.o_proj", kHidden, kHidden),
          matrix("mlp.gate_proj", kNeurons, kHidden),
          matrix("mlp.up_proj", kNeurons, kHidden),
          matrix("mlp.down_proj", kHidden, kNeurons),
          {prefix + "input_layernorm.weight", DType::bf16, {kHidden}},
          {prefix + "post_attention_layernorm.weight", DType::bf16, {kHidden}}};
}

std::vector<TensorSpec> model_specs(std::int64_t layers) {
  std::vector<TensorSpec> specs = {
      {"model.embed_tokens.weight", DType::bf16, {kVocabulary, kHidden}},
      {"model.norm.weight", DType::bf16, {kHidden}}};
  for (std::int64_t layer = 0; layer < layers; ++layer)
    for (TensorSpec& spec : layer_specs(layer)) specs.push_back(std::move(spec));
  return specs;
}

std::int64_t layers_for(std::uint64_t bytes) {
  std::uint64_t a_layer = 0;
  for (const TensorSpec& spec : layer_specs(0)) a_layer += spec.num_bytes();
  return static_cast<std::int64_t>(std::max<std::uint64_t>(1, bytes / a_layer));
}

/// Finite bfloat16 values of both signs around 2^-6, drawn once and repeated.
std::vector<std::byte> value_block() {
  RandomStream random(0, 0, RandomPurpose::bench);
  std::vector<std::byte> block(std::size_t{4} << 20);
  for (std::size_t i = 0; i < block.size(); i += 4) {
    const std::uint32_t bits = (random.next_word() & 0x81ff81ffu) | 0x3c003c00u;
    std::memcpy(block.data() + i, &bits, sizeof bits);
  }
  return block;
}

void write_model(const fs::path& folder, std::int64_t layers) {
  fs::create_directories(folder);
  const std::vector<TensorSpec> specs = model_specs(layers);
  SafetensorsWriter writer(folder / "model.safetensors", specs);
  const std::vector<std::byte> block = value_block();
  for (std::size_t t = 0; t < specs.size(); ++t) {
    for (std::uint64_t at = 0; at < specs[t].num_bytes(); at += block.size()) {
      const std::uint64_t size = std::min<std::uint64_t>(block.size(), specs[t].num_bytes() - at);
      writer.write(t, at, std::span(block).first(size));
    }
  }
  writer.finish();
  const json config = {{"architectures", {"LlamaForCausalLM"}},
                       {"model_type", "llama"},
                       {"hidden_size", kHidden},
                       {"intermediate_size", kNeurons},
                       {"num_hidden_layers", layers},
                       {"num_attention_heads", 16},
                       {"num_key_value_heads", 16},
                       {"vocab_size", kVocabulary},
                       {"hidden_act", "silu"},
                       {"rms_norm_eps", 1e-5},
                       {"max_position_embeddings", 2048},
                       {"rope_theta", 10000.0},
                       {"tie_word_embeddings", true},
                       {"torch_dtype", "bfloat16"}};
  write_file_atomically(folder / "config.json", config.dump(2));
}

void copy_blocks(const fs::path& from, const fs::path& to) {
  fs::create_directories(to);
  std::vector<std::byte> block(std::size_t{1} << 20);
  for (const fs::directory_entry& entry : fs::directory_iterator(from)) {
    const InputFile input(entry.path());
    WritableFile output(to / entry.path().filename());
    for (std::uint64_t at = 0; at < input.size(); at += block.size()) {
      const auto part =
          std::span(block).first(std::min<std::uint64_t>(block.size(), input.size() - at));
      input.read(at, part);
      output.write(at, part);
    }
    output.finish();
  }
}

}  // namespace

void bench_convert(const BenchJobConfig& config, JobContext& context, BenchOutput& output) {
  const SharedFolder folder(context.comm);
  const fs::path model = folder.path() / "model";
  const std::int64_t layers = layers_for(config.bytes);
  together(context.comm, [&] {
    if (context.is_root()) write_model(model, layers);
  });
  // The commands' own tables are not what is asked for here.
  std::ostringstream unwanted;
  JobContext quiet{.comm = context.comm,
                   .log = context.log,
                   .out = unwanted,
                   .stop = context.stop,
                   .threads = context.threads,
                   .json = true,
                   .progress = Progress::Style::quiet,
                   .force = true,
                   .verify = false,
                   .architecture_file = {},
                   .command_line = context.command_line};
  SplitJobConfig split;
  split.model = model.string();
  split.output = folder.path() / "map.h5";
  split.method = "contiguous";
  split.split.experts = kExperts;
  run_split(split, quiet);

  ConvertJobConfig convert;
  convert.model = model.string();
  convert.map = split.output;
  convert.output = folder.path() / "out";
  std::vector<double> copying;
  std::vector<double> converting;
  std::vector<double> with_check;
  for (int run = 0; run < config.repeats; ++run) {
    const auto copy = [&] {
      if (context.is_root()) copy_blocks(model, folder.path() / "copy");
    };
    copying.push_back(timed([&] { together(context.comm, copy); }));
    quiet.verify = false;
    converting.push_back(timed([&] { run_convert(convert, quiet); }));
    quiet.verify = true;
    with_check.push_back(timed([&] { run_convert(convert, quiet); }));
  }
  const Spread copy = spread_of(copying);
  const Spread plain = spread_of(converting);
  const Spread checked = spread_of(with_check);
  output.line({{"schema_version", 1},
               {"type", "convert"},
               {"layers", layers},
               {"bytes", config.bytes},
               {"copy_seconds", to_json(copy)},
               {"convert_seconds", to_json(plain)},
               {"convert_and_check_seconds", to_json(checked)},
               {"convert_over_copy", plain.median / copy.median},
               {"check_over_copy", (checked.median - plain.median) / copy.median},
               {"peak_memory", peak_memory()}});
}

}  // namespace moefy
