#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <limits>

#include "moefy/core/error.hpp"
#include "moefy/core/matrix.hpp"
#include "moefy/model/architecture.hpp"
#include "support/temp_dir.hpp"
#include "support/tiny_checkpoint.hpp"

namespace moefy {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::ThrowsMessage;

template <class T>
std::vector<std::byte> raw(std::initializer_list<T> values) {
  std::vector<std::byte> bytes(values.size() * sizeof(T));
  std::memcpy(bytes.data(), values.begin(), bytes.size());
  return bytes;
}

/// A layer with one tensor, for the functions that need no file.
LayerInfo layer_of(FfnTensor tensor, std::int64_t neurons, std::int64_t hidden) {
  LayerInfo layer;
  layer.index = 7;
  layer.num_neurons = neurons;
  layer.hidden_size = hidden;
  if (tensor.slice_total == 0) tensor.slice_total = neurons;
  layer.tensors.push_back(std::move(tensor));
  return layer;
}

Matrix<float> widened(const LayerInfo& layer, const std::vector<std::byte>& bytes) {
  Matrix<float> out(static_cast<std::size_t>(layer.num_neurons),
                    static_cast<std::size_t>(layer.hidden_size));
  widen_role(layer, layer.tensors[0].role, bytes, out.view());
  return out;
}

TEST(WidenRoleTest, takes_neuron_first_rows_as_they_are) {
  const LayerInfo layer = layer_of({.role = FfnRole::up, .tensor = "up"}, 2, 3);

  const auto out = widened(layer, raw({1.0F, 2.0F, 3.0F, 4.0F, 5.0F, 6.0F}));

  EXPECT_THAT(out.values(), ElementsAre(1, 2, 3, 4, 5, 6));
}

TEST(WidenRoleFromTest, gives_what_widening_at_once_gives) {
  for (const bool neuron_first : {true, false}) {
    const LayerInfo layer =
        layer_of({.role = FfnRole::down, .tensor = "down", .neuron_first = neuron_first}, 300, 150);
    std::vector<float> values(300 * 150);
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
    std::span<std::byte> bytes = std::as_writable_bytes(std::span(values));
    const auto expected = widened(layer, {bytes.begin(), bytes.end()});
    const auto fill_from = [](std::span<std::byte>& left) {
      return [&left](std::span<std::byte> raw) {
        std::ranges::copy(left.first(raw.size()), raw.begin());
        left = left.subspan(raw.size());
      };
    };
    AlignedBuffer<std::byte> scratch;
    Matrix<float> out(300, 150);

    std::span<std::byte> left = bytes;
    widen_role_from(layer, FfnRole::down, fill_from(left), scratch, out.view());

    EXPECT_TRUE(left.empty());
    EXPECT_TRUE(std::ranges::equal(out.values(), expected.values()));
    EXPECT_LT(scratch.size(), bytes.size());

    values[40'000] = std::numeric_limits<float>::quiet_NaN();  // not in the first block
    std::string at_once;
    try {
      widen_role(layer, FfnRole::down, bytes, out.view());
    } catch (const InputError& error) {
      at_once = error.what();
    }
    left = bytes;
    EXPECT_THAT(
        [&] { widen_role_from(layer, FfnRole::down, fill_from(left), scratch, out.view()); },
        ThrowsMessage<InputError>(testing::StrEq(at_once)));
  }
}

TEST(WidenRoleTest, transposes_hidden_first_columns) {
  const LayerInfo layer =
      layer_of({.role = FfnRole::down, .tensor = "down", .neuron_first = false}, 2, 3);

  const auto out = widened(layer, raw({1.0F, 2.0F, 3.0F, 4.0F, 5.0F, 6.0F}));

  EXPECT_THAT(out.values(), ElementsAre(1, 3, 5, 2, 4, 6));
}

TEST(WidenRoleTest, widens_bfloat16_by_hand) {
  const LayerInfo layer =
      layer_of({.role = FfnRole::up, .tensor = "up", .dtype = DType::bf16}, 2, 2);

  // 1.0 is 3F80, -2.5 is C020, 2^-126 is 0080, 0.00390625 + its last bit 3B81.
  const auto out = widened(layer, raw<std::uint16_t>({0x3F80, 0xC020, 0x0080, 0x3B81}));

  EXPECT_THAT(out.values(), ElementsAre(1.0F, -2.5F, 0x1p-126F, 0x1.02p-8F));
}

TEST(WidenRoleTest, widens_half_by_hand_and_transposes) {
  const LayerInfo layer = layer_of(
      {.role = FfnRole::down, .tensor = "down", .neuron_first = false, .dtype = DType::f16}, 2, 3);

  // 1.0, -2.0, the largest 65504, the smallest subnormal 2^-24, the smallest normal 2^-14, -0.
  const auto out =
      widened(layer, raw<std::uint16_t>({0x3C00, 0xC000, 0x7BFF, 0x0001, 0x0400, 0x8000}));

  EXPECT_THAT(out.values(), ElementsAre(1.0F, 65504.0F, 0x1p-14F, -2.0F, 0x1p-24F, -0.0F));
  EXPECT_TRUE(std::signbit(out.values()[5]));
}

class TransposeTest : public testing::TestWithParam<std::pair<int, int>> {};

TEST_P(TransposeTest, moves_every_value_of_any_shape) {
  const auto [neurons, hidden] = GetParam();
  const LayerInfo layer =
      layer_of({.role = FfnRole::down, .tensor = "down", .neuron_first = false}, neurons, hidden);
  const auto n = static_cast<std::size_t>(neurons);
  const auto d = static_cast<std::size_t>(hidden);
  std::vector<float> values(n * d);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
  std::vector<std::byte> bytes(values.size() * sizeof(float));
  std::memcpy(bytes.data(), values.data(), bytes.size());

  const auto out = widened(layer, bytes);

  for (std::size_t i = 0; i < n; ++i)
    for (std::size_t j = 0; j < d; ++j) ASSERT_EQ(out.row(i)[j], static_cast<float>(j * n + i));
}

INSTANTIATE_TEST_SUITE_P(Shapes, TransposeTest,
                         testing::Values(std::pair(1, 1), std::pair(1, 65), std::pair(65, 1),
                                         std::pair(64, 64), std::pair(63, 129),
                                         std::pair(200, 70)));

TEST(WidenRoleTest, names_the_place_of_a_bad_value) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float infinity = std::numeric_limits<float>::infinity();
  const LayerInfo straight = layer_of({.role = FfnRole::up, .tensor = "the.up"}, 2, 3);
  const LayerInfo turned =
      layer_of({.role = FfnRole::down, .tensor = "the.down", .neuron_first = false}, 2, 3);

  EXPECT_THAT(
      [&] {
        widened(straight, raw({1.0F, 2.0F, 3.0F, 4.0F, nan, 6.0F}));
      },
      ThrowsMessage<InputError>(
          AllOf(HasSubstr("layer 7"), HasSubstr("'the.up' holds nan at row 1, column 1"))));
  EXPECT_THAT(
      [&] {
        widened(turned, raw({1.0F, 2.0F, 3.0F, 4.0F, -infinity, nan}));
      },
      ThrowsMessage<InputError>(HasSubstr("'the.down' holds -inf at row 2, column 0")));
}

TEST(WidenRoleTest, names_the_first_bad_value_in_file_order) {
  // A transposed matrix is read in tiles; the one of columns 0..63 comes first, with a later row.
  const LayerInfo layer = layer_of(
      {.role = FfnRole::down, .tensor = "down", .neuron_first = false, .dtype = DType::bf16}, 100,
      3);
  std::vector<std::byte> bytes(100 * 3 * 2);
  const std::uint16_t nan = 0x7FC0;
  std::memcpy(bytes.data() + 2 * (1 * 100 + 90), &nan, 2);
  std::memcpy(bytes.data() + 2 * (2 * 100 + 5), &nan, 2);

  EXPECT_THAT([&] { widened(layer, bytes); },
              ThrowsMessage<InputError>(HasSubstr("at row 1, column 90")));
}

TEST(WidenRoleTest, counts_rows_of_a_fused_tensor_from_its_start) {
  const LayerInfo up = layer_of(
      {.role = FfnRole::up, .tensor = "gate_up", .slice_begin = 2, .slice_total = 4}, 2, 3);
  const float nan = std::numeric_limits<float>::quiet_NaN();

  EXPECT_THAT(
      [&] {
        widened(up, raw({1.0F, 2.0F, 3.0F, 4.0F, nan, 6.0F}));
      },
      ThrowsMessage<InputError>(HasSubstr("at row 3, column 1")));
}

TEST(WidenRoleTest, finds_bad_values_beyond_the_first_piece) {
  const LayerInfo layer = layer_of({.role = FfnRole::up, .tensor = "up"}, 100, 100);
  std::vector<float> values(100 * 100);
  values[9999] = std::numeric_limits<float>::infinity();
  std::vector<std::byte> bytes(values.size() * 4);
  std::memcpy(bytes.data(), values.data(), bytes.size());

  EXPECT_THAT([&] { widened(layer, bytes); },
              ThrowsMessage<InputError>(HasSubstr("inf at row 99, column 99")));
}

TEST(WidenRoleTest, widens_biases) {
  const LayerInfo layer = layer_of({.role = FfnRole::down_bias, .tensor = "b"}, 5, 2);
  Matrix<float> out(1, 2);

  widen_role(layer, FfnRole::down_bias, raw({3.0F, 4.0F}), out.view());

  EXPECT_THAT(out.values(), ElementsAre(3, 4));
  const float nan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THAT(
      [&] {
        widen_role(layer, FfnRole::down_bias, raw({3.0F, nan}), out.view());
      },
      ThrowsMessage<InputError>(HasSubstr("row 0, column 1")));
}

TEST(WidenRoleTest, refuses_buffers_of_another_size) {
  const LayerInfo layer = layer_of({.role = FfnRole::up, .tensor = "up"}, 2, 3);
  Matrix<float> out(2, 2);

  EXPECT_THROW(widen_role(layer, FfnRole::up, raw({1.0F, 2.0F, 3.0F, 4.0F}), out.view()),
               InternalError);
  EXPECT_THROW(widen_role(layer, FfnRole::gate, {}, out.view()), InternalError);
}

class ReadRoleTest : public testing::Test {
 protected:
  std::vector<std::byte> read(FfnRole role) const {
    const Checkpoint checkpoint = Checkpoint::open(dir_.path());
    const LayerInfo layer = family_.layers(checkpoint)[0];
    std::vector<std::byte> bytes(role_bytes(layer, role));
    read_role(checkpoint, layer, role, bytes);
    return bytes;
  }
  void write(std::vector<test::TinyTensor> tensors) const {
    test::write_checkpoint(
        {R"({"model_type": "test", "h": 3, "n": 2, "l": 1})", std::move(tensors)}, dir_.path());
  }

  test::TempDir dir_;
  Architecture family_ = Architecture::from_json(R"({"name": "test", "model_types": "test",
    "hidden_size": "h", "num_neurons": "n", "activation": {"keys": "act", "default": "relu"},
    "stacks": [{"name": "decoder", "num_layers": "l", "prefix": "layers.{layer}", "tensors": {
      "gate": {"name": "in", "slice": [0, 2], "layout": "hidden-first"},
      "up": {"name": "in", "slice": [1, 2], "layout": "hidden-first"},
      "down": "out",
      "gate_bias": {"name": "in_bias", "slice": [0, 2]},
      "up_bias": {"name": "in_bias", "slice": [1, 2]}}}]})",
                                                 "test.json");
};

TEST_F(ReadRoleTest, reads_any_part_of_a_role) {
  write({{"layers.0.in",
          DType::f32,
          {3, 4},
          raw({0.0F, 1.0F, 2.0F, 3.0F, 10.0F, 11.0F, 12.0F, 13.0F, 20.0F, 21.0F, 22.0F, 23.0F})},
         {"layers.0.out", DType::f16, {3, 2}, raw<std::uint16_t>({1, 2, 3, 4, 5, 6})},
         {"layers.0.in_bias", DType::f32, {4}, raw({7.0F, 8.0F, 9.0F, 10.0F})}});
  const Checkpoint checkpoint = Checkpoint::open(dir_.path());
  const LayerInfo layer = family_.layers(checkpoint)[0];
  for (const FfnRole role : {FfnRole::gate, FfnRole::up, FfnRole::down, FfnRole::up_bias}) {
    const std::vector<std::byte> whole = read(role);
    for (std::size_t begin = 0; begin <= whole.size(); ++begin) {
      for (std::size_t end = begin; end <= whole.size(); ++end) {
        std::vector<std::byte> part(end - begin);
        read_role_part(checkpoint, layer, role, begin, part);
        ASSERT_TRUE(std::equal(part.begin(), part.end(), whole.begin() + static_cast<long>(begin)));
      }
    }
    std::vector<std::byte> beyond(1);
    EXPECT_THROW(read_role_part(checkpoint, layer, role, whole.size(), beyond), InternalError);
  }
}

TEST_F(ReadRoleTest, cuts_columns_and_entries_out_of_fused_tensors) {
  write({{"layers.0.in",
          DType::f32,
          {3, 4},
          raw({0.0F, 1.0F, 2.0F, 3.0F, 10.0F, 11.0F, 12.0F, 13.0F, 20.0F, 21.0F, 22.0F, 23.0F})},
         {"layers.0.out", DType::f16, {3, 2}, raw<std::uint16_t>({1, 2, 3, 4, 5, 6})},
         {"layers.0.in_bias", DType::f32, {4}, raw({7.0F, 8.0F, 9.0F, 10.0F})}});

  EXPECT_EQ(read(FfnRole::gate), raw({0.0F, 1.0F, 10.0F, 11.0F, 20.0F, 21.0F}));
  EXPECT_EQ(read(FfnRole::up), raw({2.0F, 3.0F, 12.0F, 13.0F, 22.0F, 23.0F}));
  EXPECT_EQ(read(FfnRole::down), raw<std::uint16_t>({1, 2, 3, 4, 5, 6}));
  EXPECT_EQ(read(FfnRole::gate_bias), raw({7.0F, 8.0F}));
  EXPECT_EQ(read(FfnRole::up_bias), raw({9.0F, 10.0F}));
}

TEST(ReadRolePhi3Test, cuts_both_halves_of_gate_up) {
  const test::TempDir dir;
  const test::TinyModel model = test::tiny_model("phi3", {.dtype = DType::bf16});
  test::write_checkpoint(model, dir.path());
  const Checkpoint checkpoint = Checkpoint::open(dir.path());
  const LayerInfo layer = Architecture::detect(checkpoint).layers(checkpoint)[1];
  std::vector<std::byte> halves(2 * role_bytes(layer, FfnRole::gate));
  const std::span<std::byte> span(halves);

  read_role(checkpoint, layer, FfnRole::gate, span.first(halves.size() / 2));
  read_role(checkpoint, layer, FfnRole::up, span.last(halves.size() / 2));

  test::TinyModel copy = model;
  EXPECT_EQ(halves, copy.at("model.layers.1.mlp.gate_up_proj.weight").bytes);
}

}  // namespace
}  // namespace moefy
