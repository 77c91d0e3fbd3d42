#include "moefy/store/expert_map.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <iterator>

#include "map_compare.hpp"
#include "moefy/core/error.hpp"
#include "moefy/core/file.hpp"
#include "moefy/store/layer_record.hpp"
#include "support/sample_map.hpp"
#include "support/temp_dir.hpp"

namespace moefy {
namespace {

using test::sample_map;
using testing::HasSubstr;

std::vector<char> content_of(const std::filesystem::path& path) {
  std::ifstream stream(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}

template <class Error, class Call>
std::string message_of(Call call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return "no such error";
}

TEST(ExpertMapTest, comes_back_as_it_was_written) {
  const test::TempDir folder;
  const ExpertMap map = sample_map();

  write_expert_map(folder / "map.h5", map);

  test::expect_equal_maps(read_expert_map(folder / "map.h5"), map);
}

TEST(ExpertMapTest, comes_back_with_shared_experts_a_bias_and_a_member_order) {
  ExpertMap map = sample_map({.num_layers = 2, .num_neurons = 23, .num_shared = 2});
  LayerResult& layer = map.layers[1];
  layer.router.bias = {0.5F, -1, 0, 2};
  std::vector<double> rank(23);
  for (std::size_t i = 0; i < rank.size(); ++i) rank[i] = static_cast<double>(i * 7 % 23);
  layer.partition = layer.partition.with_member_order(rank);

  test::expect_equal_maps(parse_expert_map(expert_map_bytes(map), "memory"), map);
}

TEST(ExpertMapTest, comes_back_with_a_router_of_two_layers) {
  ExpertMap map = sample_map({.num_layers = 2});
  RouterWeights& router = map.layers[1].router;
  router.kind = "mlp";
  router.output.resize(router.weight.rows(), router.weight.rows());
  for (std::size_t i = 0; i < router.output.values().size(); ++i)
    router.output.values()[i] = static_cast<float>(i) - 3.5F;

  test::expect_equal_maps(parse_expert_map(expert_map_bytes(map), "memory"), map);
  const LayerResult decoded = decode_layer(encode_layer(map.layers[1]), "memory");
  EXPECT_TRUE(std::ranges::equal(decoded.router.output.values(), router.output.values()));
  router.output.resize(router.weight.rows(), 1);
  EXPECT_THROW(expert_map_bytes(map), InternalError);
}

TEST(ExpertMapTest, comes_back_with_experts_that_share_neurons) {
  ExpertMap map = sample_map({.num_layers = 2});
  LayerResult& layer = map.layers[1];
  layer.partition = {};
  layer.sharing = NeuronLists::from_lists(
      12, std::vector<std::vector<std::int32_t>>{{7, 0, 3}, {0, 3}, {}, {11}},
      std::vector<std::vector<std::int32_t>>{{5, 4}, {6}});
  layer.score_scale = 1.5;

  test::expect_equal_maps(parse_expert_map(expert_map_bytes(map), "memory"), map);
  test::expect_equal_layers(decode_layer(encode_layer(layer), "memory"), layer);
  layer.score_scale = 0;
  EXPECT_THROW(expert_map_bytes(map), InternalError);
  layer.score_scale.reset();
  layer.partition = Partition::from_labels({0, 1, 2, 3}, 4, 0);
  EXPECT_THROW(expert_map_bytes(map), InternalError);
}

TEST(ExpertMapTest, comes_back_with_nothing_that_may_be_absent) {
  ExpertMap map = sample_map({.num_layers = 5});
  map.layers.erase(map.layers.begin() + 1, map.layers.begin() + 3);
  map.run = {};
  map.header.config.clear();
  map.header.model_type.clear();
  LayerResult& layer = map.layers[0];
  layer.centroids = {};
  layer.prices.clear();
  layer.router = {};
  layer.inertia_trace.clear();
  layer.augmentations.clear();
  layer.surplus.clear();
  layer.stop_reason = StopReason::not_clustered;

  const ExpertMap again = parse_expert_map(expert_map_bytes(map), "memory");

  test::expect_equal_maps(again, map);
  EXPECT_TRUE(again.run.empty());
}

TEST(ExpertMapTest, comes_back_with_refitted_weights_beside_it) {
  ExpertMap map = test::sample_map();
  map.header.refit_file = "map.refit.safetensors";
  map.header.refit_fingerprint = {3, 4};

  test::expect_equal_maps(parse_expert_map(expert_map_bytes(map), "memory"), map);
}

TEST(ExpertMapTest, refuses_a_refit_file_elsewhere) {
  ExpertMap map = test::sample_map();
  map.header.refit_file = "../other/map.refit.safetensors";
  EXPECT_THROW(parse_expert_map(expert_map_bytes(map), "memory"), InputError);
}

TEST(ExpertMapTest, refuses_metrics_that_are_not_finite_or_out_of_order) {
  ExpertMap map = test::sample_map();
  map.layers[0].metrics = {{"b", 1.0}, {"a", 2.0}};
  EXPECT_THROW((void)expert_map_bytes(map), InternalError);
  map.layers[0].metrics = {{"a", std::numeric_limits<double>::infinity()}};
  EXPECT_THROW((void)expert_map_bytes(map), InternalError);
}

TEST(ExpertMapTest, comes_back_however_full_a_heap_of_texts_is) {
  // HDF5 leaves less than one object header at the end of a heap without saying so.
  ExpertMap map = test::sample_map({.num_layers = 1, .num_neurons = 8, .num_experts = 2});
  for (std::size_t length = 3000; length <= 4200; length += 8) {
    map.header.model_type.assign(length, 'x');
    ASSERT_EQ(parse_expert_map(expert_map_bytes(map), "memory").header.model_type.size(), length);
  }
}

TEST(ExpertMapTest, comes_back_without_layers) {
  ExpertMap map = sample_map();
  map.layers.clear();

  test::expect_equal_maps(parse_expert_map(expert_map_bytes(map), "memory"), map);
}

TEST(ExpertMapTest, keeps_a_run_text_above_the_limit_of_attributes) {
  ExpertMap map = sample_map();
  map.run.attributes = {{"hosts", std::string(200'000, 'h')}, {"libraries", "HDF5"}};

  test::expect_equal_maps(parse_expert_map(expert_map_bytes(map), "memory"), map);
}

TEST(ExpertMapTest, has_equal_bytes_for_equal_values) {
  EXPECT_EQ(expert_map_bytes(sample_map()), expert_map_bytes(sample_map()));
}

TEST(ExpertMapTest, has_equal_bytes_when_it_is_read_and_written_again) {
  const auto bytes = expert_map_bytes(sample_map({.num_layers = 12, .num_shared = 1}));

  EXPECT_EQ(expert_map_bytes(parse_expert_map(bytes, "memory")), bytes);
}

TEST(ExpertMapTest, has_equal_bytes_from_processes_whose_memory_differs) {
  const test::TempDir folder;
  const auto write = [&](const std::string& environment, const std::string& name) {
    const std::string command =
        environment + " " MOEFY_WRITE_SAMPLE_MAP " " + (folder / name).string() + " 9 24 4 1 6";
    ASSERT_EQ(std::system(command.c_str()), 0);
  };

  write("MALLOC_PERTURB_=0", "a.h5");
  write("MALLOC_PERTURB_=165", "b.h5");
  write_expert_map(folder / "c.h5", sample_map({.num_layers = 9,
                                                .num_neurons = 24,
                                                .num_experts = 4,
                                                .num_shared = 1,
                                                .hidden_size = 6}));

  const auto first = content_of(folder / "a.h5");
  EXPECT_FALSE(first.empty());
  EXPECT_EQ(first, content_of(folder / "b.h5"));
  EXPECT_EQ(first, content_of(folder / "c.h5"));
}

TEST(ExpertMapTest, finds_a_layer_by_its_index) {
  ExpertMap map = sample_map({.num_layers = 4});
  map.layers.erase(map.layers.begin() + 2);

  EXPECT_EQ(map.find(3)->layer_index, 3);
  EXPECT_EQ(map.find(2), nullptr);
  EXPECT_EQ(map.find(4), nullptr);
}

TEST(ExpertMapTest, refuses_to_write_arrays_that_disagree) {
  ExpertMap map = sample_map();
  map.layers[1].prices.pop_back();

  EXPECT_THAT(message_of<InternalError>([&] { (void)expert_map_bytes(map); }),
              HasSubstr("layer 1: 3 prices for 4 experts"));
}

TEST(ExpertMapTest, refuses_to_write_layers_out_of_order) {
  ExpertMap map = sample_map();
  std::swap(map.layers[0], map.layers[1]);

  EXPECT_THROW((void)expert_map_bytes(map), InternalError);
}

TEST(ExpertMapTest, refuses_to_write_values_that_are_not_finite) {
  ExpertMap map = sample_map();
  map.layers[2].centroids.row(1)[3] = std::numeric_limits<float>::infinity();

  EXPECT_THAT(message_of<InternalError>([&] { (void)expert_map_bytes(map); }),
              HasSubstr("layer 2: centroids: row 1, column 3 is not finite"));
}

TEST(ExpertMapTest, says_that_a_folder_is_not_writable) {
  EXPECT_THROW(write_expert_map("/nonexistent/folder/map.h5", sample_map()), IoError);
}

TEST(ExpertMapTest, says_that_there_is_no_such_file) {
  EXPECT_THROW(read_expert_map("/nonexistent/map.h5"), IoError);
}

TEST(ExpertMapTest, names_the_library) {
  EXPECT_THAT(hdf5_version(), testing::MatchesRegex("[0-9]+\\.[0-9]+\\.[0-9]+"));
}

}  // namespace
}  // namespace moefy
