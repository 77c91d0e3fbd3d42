// Experts that share or omit neurons.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <numeric>

#include "conversion.hpp"
#include "moefy/core/error.hpp"
#include "moefy/core/random.hpp"
#include "moefy/model/ffn_layer.hpp"

namespace moefy::test {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

using Lists = std::vector<std::vector<std::int32_t>>;

/// The same lists in every layer.
void share_neurons(ExpertMap& map, const Lists& experts, const Lists& shared = {}) {
  for (LayerResult& layer : map.layers) {
    const std::size_t neurons = layer.lists().num_neurons();
    layer.partition = {};
    layer.sharing = NeuronLists::from_lists(neurons, experts, shared);
  }
}

/// Lists of `width` of 26 neurons in random order: `experts` of them that all have neuron 0, and of
/// those that stand in no other list the last ones in an always-on list where there is one.
std::pair<Lists, Lists> overlapping_lists(std::size_t experts, std::size_t width, bool shared) {
  std::vector<std::int32_t> order(25);
  std::iota(order.begin(), order.end(), 1);
  RandomStream stream(7, 0, RandomPurpose::bench);
  shuffle(order, stream);
  Lists lists;
  std::size_t next = 0;
  for (std::size_t e = 0; e < experts; ++e) {
    std::vector<std::int32_t> list{0};
    while (list.size() < width) list.push_back(order[next++ % (shared ? 22 : 25)]);
    lists.push_back(std::move(list));
  }
  Lists always_on;
  if (shared) always_on.emplace_back(order.end() - 3, order.end());
  return {std::move(lists), std::move(always_on)};
}

struct Case {
  std::string family;
  std::string host;
  std::size_t experts = 4;
  std::int64_t top_k = 2;
  bool shared = false;
  DType dtype = DType::bf16;
  std::string layout = "classic";
};

void PrintTo(const Case& item, std::ostream* out) {
  *out << item.family << " to " << item.host << " " << item.layout << ", " << item.experts
       << " experts" << (item.shared ? ", shared" : "");
}

class SharingRoundTripTest : public testing::TestWithParam<Case> {};

TEST_P(SharingRoundTripTest, verifies_and_restores_every_byte) {
  const Case& item = GetParam();
  Conversion conversion(tiny_model(item.family, {2, 16, 26, item.dtype, 3}),
                        {item.experts, item.shared ? 1u : 0u, item.top_k, -1, 1});
  const auto [experts, shared] = overlapping_lists(item.experts, 9, item.shared);
  conversion.change_map([&](ExpertMap& map) { share_neurons(map, experts, shared); });
  ASSERT_THAT(omitted_neurons(conversion.map().layers[0].lists()), IsEmpty());

  conversion.convert({.host = item.host, .layout = item.layout, .shard_size = 6000});

  EXPECT_THAT(conversion.verify(), IsEmpty());
  conversion.restore();
  const Checkpoint restored = Checkpoint::open(conversion.restored());
  EXPECT_EQ(restored.config_text(), conversion.dense().config_text());
  for (const TensorInfo& tensor : conversion.dense().tensors())
    EXPECT_EQ(bytes_of(restored, tensor.name), bytes_of(conversion.dense(), tensor.name))
        << tensor.name;
}

std::vector<Case> cases() {
  std::vector<Case> list;
  for (const char* layout : {"classic", "fused"}) {
    list.push_back({"llama", "mixtral", 5, 2, false, DType::bf16, layout});
    list.push_back({"llama", "qwen2-moe", 4, 3, true, DType::f32, layout});
    list.push_back({"qwen3", "qwen3-moe", 4, 2, false, DType::f16, layout});
    list.push_back({"qwen2", "glm4-moe", 5, 3, true, DType::bf16, layout});
    list.push_back({"qwen3", "dots1", 5, 3, true, DType::f32, layout});
    list.push_back({"llama", "solar-open", 5, 3, false, DType::bf16, layout});
    list.push_back({"qwen3", "exaone-moe", 6, 2, true, DType::bf16, layout});
  }
  list.push_back({"granite", "granitemoe", 5, 4, false, DType::bf16, "classic"});
  list.push_back({"gemma", "granitemoeshared", 5, 4, true, DType::f32, "classic"});
  for (const char* family : {"llama", "phi3", "gpt2", "opt", "gpt_neox", "bert", "t5", "t5-gated"})
    list.push_back({family, "dense", 4, 0, true, DType::f32, "classic"});
  return list;
}

INSTANTIATE_TEST_SUITE_P(Hosts, SharingRoundTripTest, testing::ValuesIn(cases()));

TEST(SharingTest, copies_are_not_divided_and_omitted_neurons_have_no_place) {
  Conversion conversion(small_llama(), {2, 0, 2, -1, 1});
  conversion.change_map([](ExpertMap& map) { share_neurons(map, {{3, 0}, {0, 2}}); });

  conversion.convert({.align = 1});

  const Checkpoint made = Checkpoint::open(conversion.output());
  const std::string experts = "model.layers.0.mlp.experts.";
  EXPECT_THAT(values_of(made, experts + "0.gate_proj.weight"), ElementsAre(1, -1, 1, 0));
  EXPECT_THAT(values_of(made, experts + "1.gate_proj.weight"), ElementsAre(1, 0, 1, 1));
  EXPECT_THAT(values_of(made, experts + "1.down_proj.weight"), ElementsAre(2, 2, 0, -2));
  EXPECT_THAT(conversion.verify(), IsEmpty());
}

TEST(SharingTest, verify_names_the_copy_that_differs) {
  Conversion conversion(small_llama(), {2, 0, 2, -1, 1});
  conversion.change_map([](ExpertMap& map) { share_neurons(map, {{3, 0}, {0, 2}}); });
  conversion.convert({.align = 1});
  flip_bit(Checkpoint::open(conversion.output()), "model.layers.0.mlp.experts.1.up_proj.weight", 2);

  EXPECT_THAT(conversion.verify(), ElementsAre(HasSubstr("layer 0, expert 1, neuron 0")));
}

TEST(SharingTest, what_lacks_neurons_cannot_be_restored) {
  Conversion conversion(small_llama(), {2, 0, 2, -1, 1});
  conversion.change_map([](ExpertMap& map) {
    share_neurons(map, {{3, 0}, {0, 2, 1}});
    map.layers[1].sharing = NeuronLists::from_lists(4, Lists{{3}, {3, 2}});
  });
  conversion.convert();

  try {
    conversion.restore();
    FAIL() << "layer 1 lacks neurons 0 and 1";
  } catch (const InputError& error) {
    EXPECT_THAT(error.what(), AllOf(HasSubstr("layer 1 ('model.layers.1.mlp'): neurons 0, 1"),
                                    testing::Not(HasSubstr("layer 0"))));
  }
}

struct Width {
  const char* family;
  const char* key;
};

class PrunedDenseTest : public testing::TestWithParam<Width> {};

TEST_P(PrunedDenseTest, is_a_smaller_model_of_the_same_family) {
  Conversion conversion(tiny_model(GetParam().family, {2, 16, 26, DType::bf16, 3}),
                        {1, 0, 0, -1, 1});
  conversion.change_map([](ExpertMap& map) { share_neurons(map, {{1, 4, 7, 8, 25}}); });

  conversion.convert({.host = "dense"});

  EXPECT_THAT(conversion.verify(), IsEmpty());
  const Checkpoint made = Checkpoint::open(conversion.output());
  EXPECT_EQ(json::parse(made.config_text())[GetParam().key], 5);
  for (const LayerInfo& layer : Architecture::detect(made).layers(made)) {
    EXPECT_EQ(layer.num_neurons, 5);
    const FfnLayer small = load_ffn_layer(made, layer);
    const FfnLayer dense = load_ffn_layer(
        conversion.dense(), conversion.layers()[static_cast<std::size_t>(layer.index)]);
    EXPECT_TRUE(std::ranges::equal(small.down.row(3), dense.down.row(8)));
    EXPECT_TRUE(std::ranges::equal(small.up.row(4), dense.up.row(25)));
    if (layer.gated()) {
      EXPECT_TRUE(std::ranges::equal(small.gate.row(0), dense.gate.row(1)));
    }
    if (!small.up_bias.empty()) {
      EXPECT_EQ(small.up_bias[2], dense.up_bias[7]);
    }
    EXPECT_EQ(small.down_bias, dense.down_bias);
  }
}

INSTANTIATE_TEST_SUITE_P(Families, PrunedDenseTest,
                         testing::Values(Width{"llama", "intermediate_size"},
                                         Width{"phi3", "intermediate_size"},
                                         Width{"gpt2", "n_inner"}, Width{"opt", "ffn_dim"},
                                         Width{"gpt_neox", "intermediate_size"},
                                         Width{"bert", "intermediate_size"}, Width{"t5", "d_ff"},
                                         Width{"t5-gated", "d_ff"}));

TEST(PrunedDenseTest, has_one_width_in_all_layers) {
  Conversion conversion(small_llama(), {2, 0, 0, -1, 1});
  conversion.change_map([](ExpertMap& map) {
    share_neurons(map, {{0, 1}, {}});
    map.layers.pop_back();
  });

  try {
    (void)conversion.plan({.host = "dense"});
    FAIL() << "layer 1 keeps its 4 neurons";
  } catch (const UsageError& error) {
    EXPECT_THAT(error.what(), HasSubstr("layer 1 gets 4 neurons and layer 0 gets 2"));
  }
}

}  // namespace
}  // namespace moefy::test
