#include "moefy/model/architecture.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "moefy/core/error.hpp"
#include "support/temp_dir.hpp"
#include "support/tiny_checkpoint.hpp"

namespace moefy {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;
using testing::ThrowsMessage;

/// A family file with one stack; tests replace parts of it.
std::string family_text() {
  return R"({"name": "test", "model_types": ["test"], "hidden_size": "h", "num_neurons": "n",
 "activation": {"keys": "act", "default": "relu"},
 "stacks": [{"name": "decoder", "num_layers": "l", "prefix": "layers.{layer}",
             "tensors": {"up": "up.weight", "down": "down.weight"}}]})";
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const auto at = text.find(from);
  if (at == std::string::npos) throw std::invalid_argument(from);
  return text.replace(at, from.size(), to);
}

TEST(ArchitectureJsonTest, reads_a_family) {
  const Architecture family = Architecture::from_json(family_text(), "test.json");

  EXPECT_EQ(family.name(), "test");
  EXPECT_THAT(family.model_types(), testing::ElementsAre("test"));
}

TEST(ArchitectureJsonTest, has_the_families_of_the_manual) {
  std::vector<std::string> names;
  for (const Architecture& family : Architecture::built_in()) names.push_back(family.name());

  EXPECT_THAT(names, testing::ElementsAre("bert", "gemma", "gemma2", "gemma3", "gpt2", "gpt_neox",
                                          "granite", "llama", "mistral", "opt", "phi3", "qwen2",
                                          "qwen3", "t5"));
}

struct BadFamily {
  const char* name;
  const char* from;
  const char* to;
  const char* problem;
};

class BadFamilyTest : public testing::TestWithParam<BadFamily> {};

TEST_P(BadFamilyTest, is_refused_with_its_place) {
  const BadFamily& bad = GetParam();
  const std::string text = replaced(family_text(), bad.from, bad.to);

  EXPECT_THAT([&] { Architecture::from_json(text, "test.json"); },
              ThrowsMessage<InputError>(AllOf(HasSubstr("test.json"), HasSubstr(bad.problem))));
}

const BadFamily kBadFamilies[] = {
    {"no_json", "{", "", "the JSON is not an object"},
    {"duplicate_key", R"("name": "test",)", R"("name": "test", "name": "test",)", "occurs twice"},
    {"unknown_key", R"("hidden_size")", R"("hiden_size")", "unknown key 'hiden_size'"},
    {"near_key", R"("hidden_size")", R"("hiden_size")", "hidden_size"},
    {"unknown_stack_key", R"("prefix":)", R"("prefixes":)", "stacks[0]: unknown key 'prefixes'"},
    {"unknown_role", R"("up":)", R"("upp":)", "tensors: unknown key 'upp'"},
    {"no_name", R"("name": "test",)", "", "no key 'name'"},
    {"no_down", R"(, "down": "down.weight")", "", "no key 'down'"},
    {"name_number", R"("name": "test")", R"("name": 3)", "'name' must be a text"},
    {"name_empty", R"("name": "test")", R"("name": "")", "'name' must be a text"},
    {"types_empty", R"(["test"])", "[]", "'model_types' is empty"},
    {"types_numbers", R"(["test"])", "[1]", "'model_types' must be a text"},
    {"activation_text", R"({"keys": "act", "default": "relu"})", R"("relu")",
     "activation: an object is expected"},
    {"names_list", R"("default": "relu")", R"("names": [])", "'names' must be an object"},
    {"names_number", R"("default": "relu")", R"("names": {"a": 1})", "'names' must map"},
    {"width_factor", R"("num_neurons": "n")", R"("num_neurons": {"keys": "n", "per_hidden": -4})",
     "'per_hidden' must hold whole numbers"},
    {"no_mark", "layers.{layer}", "layers.0", "must contain {layer} once"},
    {"two_marks", "layers.{layer}", "{layer}.{layer}", "must contain {layer} once"},
    {"stack_name", R"("name": "decoder")", R"("name": "a.b")", "must not contain '.'"},
    {"unknown_layout", R"("up.weight")", R"({"name": "up.weight", "layout": "neuron-frist"})",
     "unknown layout 'neuron-frist'"},
    {"slice_text", R"("up.weight")", R"({"name": "up.weight", "slice": "0/2"})",
     "'slice' must be [part, number of parts]"},
    {"slice_outside", R"("up.weight")", R"({"name": "up.weight", "slice": [2, 2]})",
     "must be below the number of parts"},
    {"slice_negative", R"("up.weight")", R"({"name": "up.weight", "slice": [-1, 2]})",
     "'slice' must hold whole numbers"},
    {"slice_of_down_bias", R"("up": "up.weight")",
     R"("up": "up.weight", "down_bias": {"name": "b", "slice": [0, 2]})", "no 'slice'"},
    {"layout_of_bias", R"("up": "up.weight")",
     R"("up": "up.weight", "up_bias": {"name": "b", "layout": "neuron-first"})", "no 'layout'"},
    {"optional_text", R"("up.weight")", R"({"name": "up.weight", "optional": "yes"})",
     "'optional' must be true or false"},
    {"tensor_number", R"("up.weight")", "5", "an object is expected"},
    {"tensor_empty", R"("up.weight")", R"("")", "the name is empty"},
    {"tensors_empty", R"({"up": "up.weight", "down": "down.weight"})", "[]", "'tensors' is empty"},
};

INSTANTIATE_TEST_SUITE_P(All, BadFamilyTest, testing::ValuesIn(kBadFamilies),
                         [](const auto& test) { return std::string(test.param.name); });

TEST(ArchitectureJsonTest, refuses_stacks_of_one_name_and_no_stacks) {
  const std::string stack = R"({"name": "a", "num_layers": "l", "prefix": "{layer}",
                                "tensors": {"up": "u", "down": "d"}})";
  const std::string head = R"({"name": "test", "model_types": "test", "hidden_size": "h",
      "num_neurons": "n", "activation": {"keys": "act"}, "stacks": )";

  EXPECT_NO_THROW(Architecture::from_json(head + "[" + stack + "]}", "x"));
  EXPECT_THAT([&] { Architecture::from_json(head + "[" + stack + "," + stack + "]}", "x"); },
              ThrowsMessage<InputError>(HasSubstr("two stacks are named 'a'")));
  EXPECT_THAT([&] { Architecture::from_json(head + "[]}", "x"); },
              ThrowsMessage<InputError>(HasSubstr("'stacks' must be a list")));
}

class DetectTest : public testing::Test {
 protected:
  Checkpoint with_config(const std::string& config) const {
    test::TinyModel model = test::tiny_model("llama");
    model.config = config;
    test::write_checkpoint(model, dir_.path());
    return Checkpoint::open(dir_.path());
  }
  test::TempDir dir_;
};

TEST_F(DetectTest, goes_by_model_type) {
  EXPECT_EQ(Architecture::detect(with_config(R"({"model_type": "llama"})")).name(), "llama");
  EXPECT_EQ(Architecture::detect(with_config(R"({"model_type": "gemma3_text"})")).name(), "gemma3");
}

TEST_F(DetectTest, prefers_families_from_files) {
  const std::vector<Architecture> extra{
      Architecture::from_json(replaced(family_text(), R"(["test"])", R"(["llama"])"), "own.json")};

  EXPECT_EQ(Architecture::detect(with_config(R"({"model_type": "llama"})"), extra).name(), "test");
}

TEST_F(DetectTest, names_near_families_and_how_to_add_one) {
  const Checkpoint checkpoint = with_config(R"({"model_type": "lama"})");

  EXPECT_THAT([&] { Architecture::detect(checkpoint); },
              ThrowsMessage<InputError>(AllOf(HasSubstr("model_type 'lama'"), HasSubstr("llama"),
                                              HasSubstr("--architecture FILE"))));
}

TEST_F(DetectTest, refuses_configs_without_a_usable_model_type) {
  const Checkpoint none = with_config("{}");
  EXPECT_THAT([&] { Architecture::detect(none); },
              ThrowsMessage<InputError>(HasSubstr("config.json: no 'model_type'")));
  const Checkpoint number = with_config(R"({"model_type": 3})");
  EXPECT_THAT([&] { Architecture::detect(number); },
              ThrowsMessage<InputError>(HasSubstr("'model_type' must be a text")));
}

}  // namespace
}  // namespace moefy
