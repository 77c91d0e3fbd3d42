#include <gtest/gtest.h>

#include "moefy/model/architecture.hpp"
#include "support/temp_dir.hpp"
#include "support/tiny_checkpoint.hpp"

namespace moefy {
namespace {

/// Fingerprint of layer 0.
Digest fingerprint(const test::TinyModel& model, std::size_t shards = 1) {
  const test::TempDir dir;
  test::write_checkpoint(model, dir.path(), shards);
  const Checkpoint checkpoint = Checkpoint::open(dir.path());
  return layer_fingerprint(checkpoint, Architecture::detect(checkpoint).layers(checkpoint).at(0));
}

TEST(FingerprintTest, does_not_depend_on_shards_or_order) {
  test::TinyModel model = test::tiny_model("llama");
  const Digest expected = fingerprint(model);

  EXPECT_EQ(fingerprint(model, 3), expected);
  std::reverse(model.tensors.begin(), model.tensors.end());
  EXPECT_EQ(fingerprint(model), expected);
}

TEST(FingerprintTest, does_not_depend_on_other_tensors) {
  test::TinyModel model = test::tiny_model("llama");
  const Digest expected = fingerprint(model);

  model.at("model.norm.weight").bytes[0] ^= std::byte{1};
  model.at("model.layers.1.mlp.up_proj.weight").bytes[0] ^= std::byte{1};

  EXPECT_EQ(fingerprint(model), expected);
}

TEST(FingerprintTest, changes_with_any_bit_of_any_tensor_of_the_layer) {
  for (const char* family : {"llama", "phi3", "gpt2"}) {
    const test::TinyModel model = test::tiny_model(family);
    const Digest expected = fingerprint(model);
    for (std::size_t i = 0; i < model.tensors.size(); ++i) {
      const std::string& name = model.tensors[i].name;
      if (name.find("0.mlp.") == std::string::npos) continue;
      SCOPED_TRACE(name);
      test::TinyModel changed = model;
      changed.tensors[i].bytes.back() ^= std::byte{1};
      EXPECT_NE(fingerprint(changed), expected);
      changed = model;
      changed.tensors[i].bytes.front() ^= std::byte{0x80};
      EXPECT_NE(fingerprint(changed), expected);
    }
  }
}

TEST(FingerprintTest, changes_with_the_dtype_for_equal_bytes) {
  test::TinyModel model = test::tiny_model("llama", {.dtype = DType::bf16});
  const Digest expected = fingerprint(model);

  model.at("model.layers.0.mlp.up_proj.weight").dtype = DType::f16;

  EXPECT_NE(fingerprint(model), expected);
}

TEST(FingerprintTest, changes_with_the_shape_for_equal_bytes) {
  test::TinyModel model = test::tiny_model("gpt2");
  const Digest expected = fingerprint(model);

  for (const char* layer : {"transformer.h.0.mlp.", "transformer.h.1.mlp."}) {
    model.at(layer + std::string("c_fc.weight")).shape = {8, 48};
    model.at(layer + std::string("c_proj.weight")).shape = {48, 8};
    model.erase(layer + std::string("c_fc.bias"));
    model.erase(layer + std::string("c_proj.bias"));
    model.tensors.push_back(
        test::random_tensor(layer + std::string("c_fc.bias"), DType::f32, {48}));
    model.tensors.push_back(
        test::random_tensor(layer + std::string("c_proj.bias"), DType::f32, {8}));
  }
  model.config = R"({"model_type": "gpt2", "n_embd": 8, "n_inner": 48, "n_layer": 2})";

  EXPECT_NE(fingerprint(model), expected);
}

TEST(FingerprintTest, changes_with_the_name_for_equal_bytes) {
  test::TinyModel model = test::tiny_model("llama");
  const Digest expected = fingerprint(model);

  for (auto& tensor : model.tensors)
    if (tensor.name.starts_with("model.layers.")) tensor.name.erase(0, 6);

  EXPECT_NE(fingerprint(model), expected);
}

TEST(FingerprintTest, reads_tensors_above_one_block) {
  // 9 MB a matrix, so three blocks; the change is in the last.
  test::TinyModel model = test::tiny_model("llama", {.layers = 1, .hidden = 1500, .neurons = 1500});
  const Digest expected = fingerprint(model);

  model.at("model.layers.0.mlp.gate_proj.weight").bytes.back() ^= std::byte{1};

  EXPECT_NE(fingerprint(model), expected);
}

TEST(FingerprintTest, is_the_same_whatever_was_read_before) {
  for (const char* family : {"llama", "phi3", "gpt2"}) {
    const test::TempDir dir;
    test::write_checkpoint(test::tiny_model(family), dir.path());
    const Checkpoint checkpoint = Checkpoint::open(dir.path());
    const LayerInfo layer = Architecture::detect(checkpoint).layers(checkpoint).at(0);
    const Digest expected = layer_fingerprint(checkpoint, layer);
    std::vector<FfnRole> roles;
    for (const FfnRole role : {FfnRole::gate, FfnRole::up, FfnRole::down})
      if (layer.find(role)) roles.push_back(role);
    do {
      LayerReader reader(checkpoint, layer);
      AlignedBuffer<std::byte> scratch;
      Matrix<float> rows(static_cast<std::size_t>(layer.num_neurons),
                         static_cast<std::size_t>(layer.hidden_size));
      for (const FfnRole role : roles) {
        reader.read_rows(role, scratch, rows.view());
        reader.read_rows(role, scratch, rows.view());
      }
      EXPECT_EQ(reader.fingerprint(), expected) << family << " from " << to_string(roles.front());
    } while (std::next_permutation(roles.begin(), roles.end()));
  }
}

TEST(FingerprintTest, of_the_source_covers_config_and_layers_in_order) {
  const test::TempDir dir;
  test::TinyModel model = test::tiny_model("llama");
  test::write_checkpoint(model, dir.path());
  const Checkpoint checkpoint = Checkpoint::open(dir.path());
  const std::vector<Digest> layers{{1, 2}, {3, 4}};
  const std::vector<Digest> swapped{{3, 4}, {1, 2}};

  const Digest source = source_fingerprint(checkpoint, layers);

  EXPECT_EQ(source_fingerprint(checkpoint, layers), source);
  EXPECT_NE(source_fingerprint(checkpoint, swapped), source);
  model.config += " ";
  test::write_checkpoint(model, dir.path());
  EXPECT_NE(source_fingerprint(Checkpoint::open(dir.path()), layers), source);
}

}  // namespace
}  // namespace moefy
