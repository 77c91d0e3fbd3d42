#include "moefy/report/map_diff.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <numeric>

#include "moefy/core/random.hpp"
#include "support/sample_map.hpp"

namespace moefy {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;

double information(std::vector<std::int32_t> a, std::vector<std::int32_t> b, std::size_t groups) {
  return adjusted_mutual_information(
      common_neurons(Partition::from_labels(std::move(a), groups, 0),
                     Partition::from_labels(std::move(b), groups, 0)));
}

/// Tries all bijections (few experts): the oracle of the matching.
std::vector<std::int32_t> best_matching(const Matrix<std::int64_t>& overlap) {
  std::vector<std::int32_t> order(overlap.cols());
  std::iota(order.begin(), order.end(), 0);
  std::vector<std::int32_t> best;
  std::int64_t most = -1;
  do {
    std::int64_t sum = 0;
    for (std::size_t i = 0; i < overlap.rows(); ++i) {
      sum += overlap.row(i)[static_cast<std::size_t>(order[i])];
    }
    if (sum > most) {
      most = sum;
      best.assign(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(overlap.rows()));
    }
  } while (std::ranges::next_permutation(order).found);
  return best;
}

ExpertMap map_with_labels(std::vector<std::int32_t> labels, std::size_t experts) {
  ExpertMap map = test::sample_map({.num_layers = 1, .num_neurons = labels.size()});
  LayerResult& layer = map.layers[0];
  layer.partition = Partition::from_labels(std::move(labels), experts, 0);
  layer.centroids = {};
  layer.prices.clear();
  layer.router = {};
  return map;
}

TEST(MutualInformationTest, is_one_for_labels_equal_up_to_renaming) {
  EXPECT_NEAR(information({0, 0, 1, 1, 2, 2}, {2, 2, 0, 0, 1, 1}, 3), 1, 1e-12);
  EXPECT_EQ(information({0, 0, 0}, {0, 0, 0}, 1), 1);
  EXPECT_EQ(information({0, 1, 2}, {2, 1, 0}, 3), 1);
}

// Values of sklearn.metrics.adjusted_mutual_info_score.
TEST(MutualInformationTest, agrees_with_scikit_learn) {
  EXPECT_NEAR(information({0, 0, 0, 1, 1, 1}, {0, 0, 1, 1, 2, 2}, 3), 0.29879245817089006, 1e-9);
  EXPECT_NEAR(information({0, 0, 1, 1, 2, 2}, {0, 1, 2, 0, 1, 2}, 3), -0.25, 1e-9);
  EXPECT_NEAR(information({0, 0, 1, 1}, {0, 0, 0, 0}, 2), 0, 1e-12);
}

TEST(MutualInformationTest, is_near_zero_for_independent_labels) {
  constexpr std::size_t kNeurons = 4096;
  RandomStream stream(3, 0, RandomPurpose::verification);
  std::vector<std::int32_t> a(kNeurons);
  for (std::size_t i = 0; i < kNeurons; ++i) a[i] = static_cast<std::int32_t>(i % 16);
  auto b = a;
  shuffle(b, stream);

  EXPECT_NEAR(information(a, b, 16), 0, 0.01);
}

TEST(MapDiffTest, finds_equal_maps_equal_whatever_their_runs) {
  const ExpertMap a = test::sample_map();
  ExpertMap b = test::sample_map();
  b.run = {};

  const MapDiff diff = compare_maps(a, b, best_matching);

  EXPECT_TRUE(diff.same());
  EXPECT_THAT(diff_table(diff), HasSubstr("the maps are equal"));
  EXPECT_THAT(diff.layers[2].matched, ElementsAre(0, 1, 2, 3));
  EXPECT_EQ(diff.layers[2].moved, 0);
}

// Old 0 0 1 1 2 2, new 2 2 0 1 1 0: two of six neurons are outside the matched experts.
TEST(MapDiffTest, matches_experts_and_counts_moved_neurons) {
  const ExpertMap old_map = map_with_labels({0, 0, 1, 1, 2, 2}, 3);
  const ExpertMap new_map = map_with_labels({2, 2, 0, 1, 1, 0}, 3);

  const MapDiff diff = compare_maps(old_map, new_map, best_matching);

  ASSERT_EQ(diff.layers.size(), 1U);
  EXPECT_EQ(diff.layers[0].moved, 2);
  EXPECT_EQ(diff.layers[0].matched[0], 2);
  EXPECT_FALSE(diff.same());
}

TEST(MapDiffTest, moves_nothing_when_experts_are_only_renamed) {
  const MapDiff diff = compare_maps(map_with_labels({0, 0, 1, 1, 2, 2}, 3),
                                    map_with_labels({1, 1, 2, 2, 0, 0}, 3), best_matching);

  EXPECT_EQ(diff.layers[0].moved, 0);
  EXPECT_THAT(diff.layers[0].matched, ElementsAre(1, 2, 0));
  EXPECT_NEAR(diff.layers[0].information.value(), 1, 1e-12);
  EXPECT_FALSE(diff.layers[0].same_experts);
  EXPECT_FALSE(diff.same());
}

TEST(MapDiffTest, leaves_experts_unmatched_when_the_other_map_has_fewer) {
  const MapDiff diff = compare_maps(map_with_labels({0, 0, 1, 1, 2, 2}, 3),
                                    map_with_labels({1, 1, 0, 0, 0, 0}, 2), best_matching);

  EXPECT_THAT(diff.layers[0].matched[0], 1);
  EXPECT_EQ(std::ranges::count(diff.layers[0].matched, -1), 1);
  EXPECT_EQ(diff.layers[0].moved, 2);
}

ExpertMap map_with_lists(std::vector<std::vector<std::int32_t>> lists) {
  ExpertMap map = map_with_labels({0, 0, 1, 1, 2, 2}, 3);
  map.layers[0].partition = {};
  map.layers[0].sharing = NeuronLists::from_lists(6, lists);
  return map;
}

TEST(MapDiffTest, compares_lists_that_share_neurons_by_what_they_have_in_common) {
  const ExpertMap a = map_with_lists({{0, 1, 2}, {0, 3}});
  const MapDiff renamed = compare_maps(a, map_with_lists({{3, 0}, {0, 1, 2}}), best_matching);
  const MapDiff other = compare_maps(a, map_with_lists({{0, 1, 4}, {0, 3, 5}}), best_matching);
  const MapDiff kinds = compare_maps(a, map_with_labels({0, 0, 0, 1, 1, 1}, 2), best_matching);

  EXPECT_TRUE(compare_maps(a, a, best_matching).same());
  EXPECT_EQ(renamed.layers[0].moved, 0);
  EXPECT_THAT(renamed.layers[0].matched, ElementsAre(1, 0));
  EXPECT_FALSE(renamed.layers[0].information);
  EXPECT_FALSE(renamed.layers[0].same_experts);
  // Of six members 0, 1 and 0, 3 stayed.
  EXPECT_EQ(other.layers[0].moved, 2);
  EXPECT_EQ(other.layers[0].num_members, 6);
  // 0, 1, 2 and 3 stayed.
  EXPECT_EQ(kinds.layers[0].moved, 2);
  EXPECT_THAT(diff_table(kinds), HasSubstr("differs"));
}

TEST(MapDiffTest, says_which_layers_and_options_have_no_counterpart) {
  ExpertMap a = test::sample_map({.num_layers = 3});
  ExpertMap b = test::sample_map({.num_layers = 3});
  a.layers.erase(a.layers.begin());
  b.layers.pop_back();
  b.header.seed = 9;

  const MapDiff diff = compare_maps(a, b, best_matching);

  ASSERT_EQ(diff.layers.size(), 3U);
  EXPECT_EQ(diff.layers[0].incomparable, "only in the second map");
  EXPECT_EQ(diff.layers[2].incomparable, "only in the first map");
  EXPECT_THAT(diff.header, ElementsAre(HasSubstr("seed: 18446744073709551615 against 9")));
}

TEST(MapDiffTest, refuses_to_compare_layers_of_other_widths) {
  const MapDiff diff =
      compare_maps(map_with_labels({0, 1}, 2), map_with_labels({0, 1, 1}, 2), best_matching);

  EXPECT_EQ(diff.layers[0].incomparable, "2 neurons against 3");
}

TEST(MapDiffTest, tells_one_changed_value_from_other_experts) {
  const ExpertMap a = test::sample_map();
  ExpertMap b = test::sample_map();
  b.layers[1].router.weight.row(0)[0] += 1;

  const MapDiff diff = compare_maps(a, b, best_matching);

  EXPECT_TRUE(diff.layers[1].same_experts);
  EXPECT_FALSE(diff.layers[1].same_contents);
  EXPECT_THAT(diff_table(diff), HasSubstr("same experts, other values"));
}

TEST(MapDiffTest, prints_json_lines) {
  const auto lines = diff_json_lines(compare_maps(map_with_labels({0, 0, 1, 1}, 2),
                                                  map_with_labels({0, 1, 1, 1}, 2), best_matching));

  ASSERT_EQ(lines.size(), 2U);
  EXPECT_EQ(json::parse(lines[0])["same"], false);
  const json layer = json::parse(lines[1]);
  EXPECT_EQ(layer["moved"], 1);
  EXPECT_EQ(layer["schema_version"], 1);
  EXPECT_EQ(layer["matched"], json({0, 1}));
}

}  // namespace
}  // namespace moefy
