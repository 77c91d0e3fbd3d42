#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "moefy/checkpoint/checkpoint.hpp"
#include "moefy/core/error.hpp"
#include "support/temp_dir.hpp"
#include "support/tiny_checkpoint.hpp"

namespace moefy {
namespace {

using testing::AllOf;
using testing::Ge;
using testing::HasSubstr;
using testing::ThrowsMessage;

using test::TempDir;
using test::write_text;

constexpr const char* kGate = "model.layers.0.mlp.gate_proj.weight";

class OpenTest : public testing::Test {
 protected:
  void expect_refused(const std::string& problem) const {
    EXPECT_THAT(
        [&] { Checkpoint::open(dir_.path()); },
        ThrowsMessage<InputError>(AllOf(HasSubstr(dir_.path().string()), HasSubstr(problem))));
  }
  void edit_index(const std::string& from, const std::string& to) const {
    const auto path = dir_ / "model.safetensors.index.json";
    std::string text = test::read_text(path);
    const auto at = text.find(from);
    ASSERT_NE(at, std::string::npos) << from;
    write_text(path, text.replace(at, from.size(), to));
  }

  TempDir dir_;
  test::TinyModel model_ = test::tiny_model("llama");
};

TEST_F(OpenTest, reads_a_single_file) {
  test::write_checkpoint(model_, dir_.path());

  const Checkpoint checkpoint = Checkpoint::open(dir_.path());

  EXPECT_EQ(checkpoint.config_text(), model_.config);
  ASSERT_EQ(checkpoint.tensors().size(), model_.tensors.size());
  ASSERT_EQ(checkpoint.shards().size(), 1u);
  EXPECT_EQ(checkpoint.shards()[0].file_name, "model.safetensors");
  EXPECT_EQ(checkpoint.shards()[0].metadata.at("format"), "pt");
  for (const auto& expected : model_.tensors) {
    const TensorInfo& tensor = checkpoint.at(expected.name);
    EXPECT_EQ(tensor.shape, expected.shape);
    std::vector<std::byte> bytes(tensor.num_bytes);
    checkpoint.read(tensor, 0, bytes);
    EXPECT_EQ(bytes, expected.bytes) << expected.name;
  }
}

TEST_F(OpenTest, reads_the_same_from_shards) {
  test::write_checkpoint(model_, dir_.path(), 3);

  const Checkpoint checkpoint = Checkpoint::open(dir_.path());

  EXPECT_EQ(checkpoint.shards().size(), 3u);
  std::uint64_t bytes = 0;
  for (const auto& expected : model_.tensors) {
    std::vector<std::byte> read(expected.bytes.size());
    checkpoint.read(checkpoint.at(expected.name), 0, read);
    EXPECT_EQ(read, expected.bytes) << expected.name;
    bytes += read.size();
  }
  EXPECT_EQ(checkpoint.total_bytes(), bytes);
}

TEST_F(OpenTest, reads_part_of_a_tensor) {
  test::write_checkpoint(model_, dir_.path());
  const Checkpoint checkpoint = Checkpoint::open(dir_.path());
  std::vector<std::byte> part(5);

  checkpoint.read(checkpoint.at(kGate), 7, part);

  EXPECT_EQ(0, std::memcmp(part.data(), model_.at(kGate).bytes.data() + 7, part.size()));
  EXPECT_THROW(checkpoint.read(checkpoint.at(kGate), 24 * 16 * 4 - 4, part), InternalError);
}

TEST_F(OpenTest, takes_a_lone_file_of_any_name) {
  write_text(dir_ / "config.json", model_.config);
  write_text(dir_ / "weights.safetensors", test::safetensors_file(model_.tensors));

  EXPECT_EQ(Checkpoint::open(dir_.path()).tensors().size(), model_.tensors.size());
}

TEST_F(OpenTest, finds_tensors_by_name) {
  test::write_checkpoint(model_, dir_.path());
  const Checkpoint checkpoint = Checkpoint::open(dir_.path());

  EXPECT_EQ(checkpoint.find("model.norm"), nullptr);
  ASSERT_NE(checkpoint.find("model.norm.weight"), nullptr);
  EXPECT_THAT([&] { checkpoint.at("model.nrm.weight"); },
              ThrowsMessage<InputError>(HasSubstr("no tensor 'model.nrm.weight'")));
}

TEST_F(OpenTest, refuses_directories_that_are_none) {
  EXPECT_THAT([&] { Checkpoint::open(dir_ / "absent"); },
              ThrowsMessage<InputError>(HasSubstr("absent: no such directory")));
  write_text(dir_ / "file", "");
  EXPECT_THAT([&] { Checkpoint::open(dir_ / "file"); },
              ThrowsMessage<InputError>(HasSubstr("not a directory")));
}

TEST_F(OpenTest, refuses_missing_and_broken_configs) {
  test::write_checkpoint(model_, dir_.path());
  const auto config = dir_ / "config.json";

  std::filesystem::remove(config);
  expect_refused("no config.json");
  write_text(config, "");
  expect_refused("not valid JSON");
  write_text(config, "[]");
  expect_refused("not an object");
  write_text(config, R"({"model_type": "llama", "model_type": "opt"})");
  expect_refused("the key 'model_type' occurs twice");
  write_text(config, "{" + std::string(16'000'001, ' ') + "}");
  expect_refused("config.json");
  std::filesystem::remove(config);
  std::filesystem::create_directory(config);
  expect_refused("config.json");
}

TEST_F(OpenTest, says_what_to_do_without_safetensors) {
  write_text(dir_ / "config.json", model_.config);
  expect_refused("no *.safetensors file");
  write_text(dir_ / "model.gguf", "GGUF");
  expect_refused("gguf_file=");
  write_text(dir_ / "pytorch_model.bin", "x");
  expect_refused("save_pretrained('NEW')");
}

TEST_F(OpenTest, refuses_several_files_without_index) {
  write_text(dir_ / "config.json", model_.config);
  write_text(dir_ / "a.safetensors", test::safetensors_file(model_.tensors));
  write_text(dir_ / "b.safetensors", test::safetensors_file({}));

  expect_refused("2 safetensors files but no model.safetensors.index.json: a.safetensors");
}

TEST_F(OpenTest, refuses_a_truncated_file_at_every_length) {
  test::write_checkpoint(model_, dir_.path());
  const auto path = dir_ / "model.safetensors";
  const std::string whole = test::read_text(path);

  for (const std::size_t length :
       {std::size_t{0}, std::size_t{1}, std::size_t{7}, std::size_t{8}, std::size_t{9},
        std::size_t{500}, whole.size() / 2, whole.size() - 1}) {
    SCOPED_TRACE(length);
    write_text(path, whole.substr(0, length));
    expect_refused("model.safetensors");
  }
}

TEST_F(OpenTest, refuses_bytes_behind_the_data) {
  test::write_checkpoint(model_, dir_.path());
  const auto path = dir_ / "model.safetensors";

  write_text(path, test::read_text(path) + "x");

  expect_refused("1 bytes after the last tensor");
}

TEST_F(OpenTest, refuses_header_lengths_before_allocating) {
  test::write_checkpoint(model_, dir_.path());
  std::string file = test::read_text(dir_ / "model.safetensors");
  for (const std::uint64_t length : {std::uint64_t{1} << 60, ~std::uint64_t{0},
                                     std::uint64_t{1} << 63, std::uint64_t{100'000'001}}) {
    SCOPED_TRACE(length);
    std::memcpy(file.data(), &length, sizeof length);
    write_text(dir_ / "model.safetensors", file);
    expect_refused("above the limit of 100000000 bytes");
  }
  const std::uint64_t length = file.size();
  std::memcpy(file.data(), &length, sizeof length);
  write_text(dir_ / "model.safetensors", file);
  expect_refused("truncated");
}

TEST_F(OpenTest, refuses_any_flipped_bit_of_length_and_structure_or_opens_the_same_bytes) {
  // A flip in the header is either refused or changes a name, dtype or shape that is still
  // consistent: it never leads outside the file.
  const test::TinyModel small{
      R"({"model_type": "llama"})",
      {test::random_tensor("a", DType::f32, {2, 3}), test::random_tensor("b", DType::bf16, {4})}};
  test::write_checkpoint(small, dir_.path());
  const std::string whole = test::read_text(dir_ / "model.safetensors");
  std::uint64_t header = 0;
  std::memcpy(&header, whole.data(), sizeof header);
  int refused = 0;
  for (std::size_t bit = 0; bit < 8 * (8 + header); ++bit) {
    std::string flipped = whole;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << (bit % 8)));
    write_text(dir_ / "model.safetensors", flipped);
    try {
      const Checkpoint checkpoint = Checkpoint::open(dir_.path());
      for (const TensorInfo& tensor : checkpoint.tensors())
        EXPECT_LE(tensor.offset + tensor.num_bytes, whole.size());
    } catch (const InputError&) {
      ++refused;
    }
  }
  EXPECT_THAT(refused, Ge(1000));
}

TEST_F(OpenTest, recognises_a_git_lfs_pointer) {
  write_text(dir_ / "config.json", model_.config);
  write_text(dir_ / "model.safetensors",
             "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n");

  expect_refused("git lfs pull");
}

TEST_F(OpenTest, refuses_a_directory_in_place_of_the_weights) {
  write_text(dir_ / "config.json", model_.config);
  std::filesystem::create_directory(dir_ / "model.safetensors");

  expect_refused("model.safetensors");
}

TEST_F(OpenTest, names_missing_shards) {
  test::write_checkpoint(model_, dir_.path(), 3);
  std::filesystem::remove(dir_ / "model-00002-of-00003.safetensors");

  expect_refused("1 of 3 shards are missing: model-00002-of-00003.safetensors");
}

TEST_F(OpenTest, refuses_an_index_without_a_tensor_of_a_shard) {
  test::write_checkpoint(model_, dir_.path(), 2);
  edit_index(R"("model.embed_tokens.weight": "model-00001-of-00002.safetensors", )", "");

  expect_refused(
      "tensor 'model.embed_tokens.weight' of model-00001-of-00002.safetensors is not in");
}

TEST_F(OpenTest, refuses_an_index_with_a_tensor_that_no_shard_has) {
  test::write_checkpoint(model_, dir_.path(), 2);
  edit_index(R"("weight_map": {)",
             R"("weight_map": {"ghost": "model-00001-of-00002.safetensors", )");

  expect_refused("tensor 'ghost' is in model-00001-of-00002.safetensors, but it is not");
}

TEST_F(OpenTest, refuses_an_index_that_names_the_wrong_shard) {
  test::write_checkpoint(model_, dir_.path(), 2);
  edit_index(R"("model.embed_tokens.weight": "model-00001)",
             R"("model.embed_tokens.weight": "model-00002)");

  expect_refused("is in model-00001-of-00002.safetensors, but the index says model-00002");
}

TEST_F(OpenTest, refuses_a_tensor_in_two_shards) {
  test::write_checkpoint(model_, dir_.path(), 2);
  write_text(dir_ / "model-00002-of-00002.safetensors", test::safetensors_file(model_.tensors));

  expect_refused("but the index says");
}

TEST_F(OpenTest, refuses_shard_names_that_leave_the_directory) {
  for (const char* name : {"../other.safetensors", "/etc/passwd", "sub/x.safetensors", "..", "",
                           "x.bin", "a\\\\b.safetensors", ".safetensors", "x\\u0000.safetensors"}) {
    SCOPED_TRACE(name);
    test::write_checkpoint(model_, dir_.path(), 2);
    edit_index("model-00001-of-00002.safetensors", name);
    expect_refused("is not the name of a safetensors file in this directory");
  }
}

TEST_F(OpenTest, refuses_broken_indexes) {
  test::write_checkpoint(model_, dir_.path(), 2);
  for (const char* text : {"{}", R"({"weight_map": []})", R"({"weight_map": {}})"}) {
    SCOPED_TRACE(text);
    write_text(dir_ / "model.safetensors.index.json", text);
    expect_refused("no object 'weight_map'");
  }
  write_text(dir_ / "model.safetensors.index.json", R"({"weight_map": {"a": 3}})");
  expect_refused("the file of tensor 'a' is not a string");
  write_text(dir_ / "model.safetensors.index.json",
             R"({"weight_map": {"a": "x.safetensors", "a": "y.safetensors"}})");
  expect_refused("the key 'a' occurs twice");
  write_text(dir_ / "model.safetensors.index.json", "");
  expect_refused("not valid JSON");
}

TEST_F(OpenTest, refuses_two_checkpoints_in_one_directory) {
  test::write_checkpoint(model_, dir_.path(), 2);
  test::write_checkpoint(model_, dir_.path());

  expect_refused("two checkpoints in one directory");
}

TEST_F(OpenTest, refuses_quantised_configs_by_method) {
  for (const char* method : {"gptq", "awq", "bitsandbytes", "fp8", "compressed-tensors", "mxfp4"}) {
    SCOPED_TRACE(method);
    model_.config =
        std::string(R"({"model_type": "llama", "quantization_config": {"quant_method": ")") +
        method + R"("}})";
    test::write_checkpoint(model_, dir_.path());
    expect_refused(std::string("method: '") + method + "'");
  }
  model_.config = R"({"model_type": "gemma3", "text_config": {"quantization_config": {}}})";
  test::write_checkpoint(model_, dir_.path());
  expect_refused("method: 'unknown'");
  model_.config = R"({"model_type": "llama", "quantization": {"bits": 4}})";
  test::write_checkpoint(model_, dir_.path());
  expect_refused("method: 'MLX'");
}

TEST_F(OpenTest, accepts_a_null_quantization_config) {
  model_.config = R"({"model_type": "llama", "quantization_config": null})";
  test::write_checkpoint(model_, dir_.path());

  EXPECT_NO_THROW(Checkpoint::open(dir_.path()));
}

TEST_F(OpenTest, refuses_quantised_tensors_by_method) {
  const std::pair<const char*, const char*> cases[] = {
      {"model.layers.0.mlp.up_proj.qweight", "GPTQ or AWQ"},
      {"model.layers.0.mlp.up_proj.weight.quant_state.bitsandbytes__nf4", "bitsandbytes"},
      {"model.layers.0.mlp.up_proj.SCB", "bitsandbytes"},
      {"model.layers.0.mlp.up_proj.weight_scale_inv", "FP8"},
      {"model.layers.0.mlp.up_proj.weight_packed", "compressed-tensors"}};
  for (const auto& [name, method] : cases) {
    SCOPED_TRACE(name);
    test::TinyModel model = test::tiny_model("llama");
    model.tensors.push_back(test::random_tensor(name, DType::f32, {1}));
    test::write_checkpoint(model, dir_.path());
    expect_refused(std::string("method: ") + method);
    expect_refused(name);
  }
}

TEST_F(OpenTest, passes_tensors_of_any_dtype) {
  test::TinyTensor counter{"counter", DType::i64, {1}, std::vector<std::byte>(8)};
  test::TinyTensor mask{"mask", DType::boolean, {3}, std::vector<std::byte>(3)};
  model_.tensors.push_back(counter);
  model_.tensors.push_back(mask);
  test::write_checkpoint(model_, dir_.path());

  const Checkpoint checkpoint = Checkpoint::open(dir_.path());

  EXPECT_EQ(checkpoint.at("counter").dtype, DType::i64);
  EXPECT_EQ(checkpoint.at("mask").num_bytes, 3u);
}

TEST_F(OpenTest, names_file_and_tensor_when_the_file_shrinks_behind_its_back) {
  test::write_checkpoint(model_, dir_.path());
  const Checkpoint checkpoint = Checkpoint::open(dir_.path());
  std::filesystem::resize_file(dir_ / "model.safetensors", 100);
  std::vector<std::byte> bytes(checkpoint.at(kGate).num_bytes);

  EXPECT_THAT([&] { checkpoint.read(checkpoint.at(kGate), 0, bytes); },
              ThrowsMessage<InputError>(AllOf(HasSubstr(kGate), HasSubstr("model.safetensors"))));
}

}  // namespace
}  // namespace moefy
