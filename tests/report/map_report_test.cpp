#include "moefy/report/map_report.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>

#include "moefy/report/layer_figures.hpp"
#include "support/sample_map.hpp"

namespace moefy {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

Matrix<float> matrix_of(std::size_t rows, std::size_t cols, std::vector<float> values) {
  Matrix<float> matrix(rows, cols);
  std::ranges::copy(values, matrix.values().begin());
  return matrix;
}

LayerResult small_layer() {
  LayerResult layer;
  layer.name = "mlp";
  layer.hidden_size = 2;
  layer.method = "kmeans";
  layer.normalize = "l2";
  layer.partition = Partition::from_labels({0, 0, 1, -1}, 2, 1);
  layer.centroids = matrix_of(2, 2, {0.6F, 0, 0, 1});
  layer.router.kind = "centroid";
  layer.router.weight = matrix_of(2, 2, {2, 0, 3, 4});
  layer.inertia = 3;
  layer.inertia_random = 4;
  layer.inertia_unconstrained = 2;
  layer.stop_reason = StopReason::fixpoint;
  return layer;
}

TEST(LayerFiguresTest, follow_from_the_result) {
  const LayerFigures figures = figures_of(small_layer());

  EXPECT_EQ(figures.size_min, 1U);
  EXPECT_EQ(figures.size_max, 2U);
  EXPECT_EQ(figures.shared_neurons, 1U);
  EXPECT_DOUBLE_EQ(*figures.inertia_over_random, 0.75);
  EXPECT_DOUBLE_EQ(*figures.price_of_balance, 1.5);
  EXPECT_DOUBLE_EQ(figures.router->norm_min, 2);
  EXPECT_DOUBLE_EQ(figures.router->norm_max, 5);
  // cos((2, 0), (3, 4)) = 3 / 5.
  EXPECT_NEAR(figures.router->mean_cosine, 0.6, 1e-12);
  ASSERT_EQ(figures.spread.size(), 2U);
  EXPECT_NEAR(figures.spread[0], 1 - 0.36, 1e-6);
  EXPECT_EQ(figures.spread[1], 0);
}

TEST(LayerFiguresTest, are_absent_where_they_are_not_defined) {
  LayerResult layer = small_layer();
  layer.inertia_random = 0;
  layer.inertia_unconstrained = 0;
  layer.router = {};
  layer.normalize = "none";

  const LayerFigures figures = figures_of(layer);

  EXPECT_FALSE(figures.inertia_over_random);
  EXPECT_FALSE(figures.price_of_balance);
  EXPECT_FALSE(figures.router);
  EXPECT_TRUE(figures.spread.empty());
}

TEST(LayerFiguresTest, have_no_cosine_of_rows_that_are_zero) {
  LayerResult layer = small_layer();
  layer.router.weight = matrix_of(2, 2, {0, 0, 3, 4});

  EXPECT_EQ(figures_of(layer).router->mean_cosine, 0);
}

/// Three experts of three neurons of six, of which neuron 3 is in none.
LayerResult sharing_layer() {
  LayerResult layer = small_layer();
  layer.partition = {};
  layer.sharing = NeuronLists::from_lists(
      6, std::vector<std::vector<std::int32_t>>{{4, 2, 0}, {0, 5, 1}, {0, 1, 2}});
  layer.stop_reason = StopReason::not_clustered;
  layer.centroids = {};
  layer.router = {};
  return layer;
}

TEST(LayerFiguresTest, tell_how_lists_that_share_neurons_cover_the_layer) {
  const LayerFigures figures = figures_of(sharing_layer());

  EXPECT_EQ(figures.size_max, 3U);
  ASSERT_TRUE(figures.sharing);
  EXPECT_DOUBLE_EQ(figures.sharing->coverage, 5.0 / 6);
  EXPECT_THAT(figures.sharing->omitted, ElementsAre(3));
  EXPECT_EQ(figures.sharing->duplicates, 4);
  EXPECT_THAT(figures.sharing->overlap.row(0), ElementsAre(1, 0.2, 0.5));
  EXPECT_THAT(figures.sharing->overlap.row(1), ElementsAre(0.2, 1, 0.5));
  EXPECT_DOUBLE_EQ(figures.sharing->mean_overlap, 0.4);
  EXPECT_FALSE(figures_of(small_layer()).sharing);
}

TEST(MapTableTest, tells_what_lists_share_and_leave_out) {
  ExpertMap map = test::sample_map({.num_layers = 2});
  EXPECT_THAT(map_table(map), Not(HasSubstr("omitted")));
  EXPECT_THAT(map_html(map, "title"), Not(HasSubstr("Shared neurons")));
  EXPECT_TRUE(json::parse(map_json_lines(map)[1])["sharing"].is_null());
  map.layers[0] = sharing_layer();

  EXPECT_THAT(map_table(map), ::testing::ContainsRegex("0 +0\\.8333 +1 +4 +0\\.4000 +3"));
  EXPECT_THAT(map_html(map, "title"), HasSubstr("omitted neurons: 3<"));
  const json line = json::parse(map_json_lines(map)[1]);
  EXPECT_EQ(line["kind"], "sharing");
  EXPECT_EQ(line["sharing"]["overlap"][0], json({1.0, 0.2, 0.5}));
  const json exported = json::parse(map_export_json(map))["layers"][0];
  EXPECT_FALSE(exported.contains("labels"));
  EXPECT_EQ(exported["members"], json({4, 2, 0, 0, 5, 1, 0, 1, 2}));
  for (const NamedArray& array : named_arrays(map)) EXPECT_NE(array.name, "layers.00000.labels");
}

TEST(MapTableTest, has_a_line_for_every_layer_and_a_summary) {
  ExpertMap map = test::sample_map({.num_layers = 3});
  map.layers[0] = small_layer();

  const std::string table = map_table(map);

  EXPECT_THAT(table, HasSubstr("model.layers.2.mlp"));
  EXPECT_THAT(table, HasSubstr("1..2"));
  EXPECT_THAT(table, HasSubstr("0.7500"));
  EXPECT_THAT(table, HasSubstr("1.5000"));
  EXPECT_THAT(table, HasSubstr("proven optimal (gap 0) in 3 of 3"));
}

TEST(MapTableTest, tells_what_was_measured) {
  ExpertMap map = test::sample_map();
  for (std::size_t i = 0; i < map.layers.size(); ++i)
    map.layers[i].metrics = {{"router_recall", i == 0 ? 0.25 : 0.75}};
  map.layers[0].method = "activation";
  map.layers[0].stop_reason = StopReason::not_clustered;
  const std::string table = map_table(map);
  EXPECT_THAT(table, HasSubstr("router_recall"));
  EXPECT_THAT(table, ::testing::ContainsRegex("router_recall .* 0\\.25 .* 0\\.75"));
  EXPECT_THAT(table, Not(HasSubstr("(baseline)")));
  EXPECT_THAT(map_html(map, "title"), HasSubstr("Measured on text"));
  EXPECT_THAT(map_json_lines(map)[1], HasSubstr("\"router_recall\":0.25"));
}

TEST(MapTableTest, calls_a_baseline_a_baseline) {
  ExpertMap map = test::sample_map({.num_layers = 1});
  map.layers[0].method = "random";
  map.layers[0].stop_reason = StopReason::not_clustered;

  EXPECT_THAT(map_table(map), HasSubstr("random (baseline)"));
  EXPECT_THAT(map_table(map), Not(HasSubstr("proven")));
}

TEST(MapJsonTest, has_one_object_a_line_with_the_schema_version) {
  const auto lines = map_json_lines(test::sample_map({.num_layers = 2}));

  ASSERT_EQ(lines.size(), 3U);
  for (const std::string& line : lines) {
    EXPECT_THAT(line, Not(HasSubstr("\n")));
    EXPECT_EQ(json::parse(line)["schema_version"], kReportSchema);
  }
  const json header = json::parse(lines[0]);
  EXPECT_EQ(header["type"], "map");
  EXPECT_EQ(header["seed"], ~std::uint64_t{0});
  EXPECT_EQ(header["options"]["note"], "größe");
  EXPECT_EQ(json::parse(lines[2])["name"], "model.layers.1.mlp");
}

TEST(MapJsonTest, survives_numbers_and_texts_that_json_has_not) {
  ExpertMap map = test::sample_map({.num_layers = 1});
  map.layers[0].inertia = std::numeric_limits<double>::quiet_NaN();
  map.layers[0].name = "\xff\xfe";
  map.header.config = "{ not json";

  const auto lines = map_json_lines(map);

  EXPECT_TRUE(json::parse(lines[1])["inertia"].is_null());
  EXPECT_TRUE(json::parse(lines[1])["inertia_over_random"].is_null());
  EXPECT_EQ(json::parse(lines[0])["options"], "{ not json");
}

TEST(MapExportTest, holds_every_array_of_the_map) {
  const ExpertMap map = test::sample_map({.num_layers = 2, .num_shared = 1});

  const json out = json::parse(map_export_json(map));

  ASSERT_EQ(out["layers"].size(), 2U);
  const json& layer = out["layers"][1];
  const auto labels = map.layers[1].partition.labels();
  EXPECT_EQ(layer["labels"].get<std::vector<std::int32_t>>(),
            std::vector(labels.begin(), labels.end()));
  EXPECT_EQ(layer["prices"].get<std::vector<double>>(), map.layers[1].prices);
  EXPECT_EQ(layer["centroids"][2][3].get<float>(), map.layers[1].centroids.row(2)[3]);
  EXPECT_EQ(layer["router"]["weight"].size(), 4U);
}

TEST(NamedArraysTest, describe_the_memory_of_the_map) {
  const ExpertMap map = test::sample_map({.num_layers = 2});

  const auto arrays = named_arrays(map);

  const auto at = std::ranges::find(arrays, "layers.00001.centroids", &NamedArray::name);
  ASSERT_NE(at, arrays.end());
  EXPECT_THAT(at->shape, ElementsAre(4, 5));
  EXPECT_EQ(at->dtype, DType::f32);
  EXPECT_EQ(at->bytes.size(), 80U);
  EXPECT_EQ(std::memcmp(at->bytes.data(), map.layers[1].centroids.values().data(), 80), 0);
  for (const NamedArray& array : arrays) {
    std::size_t count = 1;
    for (const auto extent : array.shape) count *= static_cast<std::size_t>(extent);
    EXPECT_EQ(array.bytes.size(), count * size_of(array.dtype)) << array.name;
  }
}

TEST(MapHtmlTest, escapes_all_text) {
  ExpertMap map = test::sample_map({.num_layers = 1});
  map.layers[0].name = "<script>alert('name')</script>";
  map.header.config = R"({"a<b": "</script><b>\"&"})";
  map.run.attributes = {{"command_line", "moefy <b>split</b>"}};

  const std::string page = map_html(map, "</title><script>alert(1)</script>");

  EXPECT_THAT(page, Not(HasSubstr("<script>alert")));
  EXPECT_THAT(page, Not(HasSubstr("<b>split")));
  EXPECT_THAT(page, HasSubstr("&lt;script&gt;alert(&#39;name&#39;)"));
  EXPECT_THAT(page, HasSubstr("&lt;/title&gt;"));
}

TEST(MapHtmlTest, shows_a_map_without_layers_or_run) {
  ExpertMap map = test::sample_map({.num_layers = 1});
  map.layers.clear();
  map.run = {};

  const std::string page = map_html(map, "empty.h5");

  EXPECT_THAT(page, HasSubstr("holds no record of its run"));
  EXPECT_THAT(page, Not(HasSubstr("<script")));
}

TEST(MapHtmlTest, is_the_same_for_the_same_map) {
  EXPECT_EQ(map_html(test::sample_map(), "m"), map_html(test::sample_map(), "m"));
}

}  // namespace
}  // namespace moefy
