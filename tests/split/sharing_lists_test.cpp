#include "sharing_lists.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "moefy/core/error.hpp"
#include "moefy/core/random.hpp"
#include "moefy/split/splitter.hpp"
#include "support/fixed_inputs.hpp"

namespace moefy {
namespace {

using test::FixedInputs;
using test::matrix_of;
using test::plain_layer;
using test::random_matrix;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

Matrix<double> six_neurons() {
  return matrix_of<double>(3, 6, {9, 1, 8, 2, 7, 3, 9, 8, 1, 2, 3, 7, 5, 5, 5, 5, 5, 5});
}

Matrix<double> eight_neurons() {
  return matrix_of<double>(
      3, 8, {9, 1, 8, 2, 7, 3, 6, 4, 9, 8, 1, 2, 3, 7, 6, 5, 1, 9, 2, 8, 3, 7, 4, 6});
}

TEST(SharingListsTest, inner_gives_every_expert_its_own_favourites) {
  const NeuronLists lists = inner_sharing(six_neurons(), 3);

  EXPECT_THAT(lists.expert_members(0), ElementsAre(0, 2, 4));
  EXPECT_THAT(lists.expert_members(1), ElementsAre(0, 1, 5));
  EXPECT_THAT(lists.expert_members(2), ElementsAre(0, 1, 2));
  EXPECT_THAT(omitted_neurons(lists), ElementsAre(3));
  EXPECT_EQ(total_score(six_neurons(), lists), 24 + 24 + 15);
}

TEST(SharingListsTest, inter_puts_what_most_want_into_always_on_experts) {
  const NeuronLists lists = inter_sharing(eight_neurons(), 2, 1);

  EXPECT_THAT(lists.shared_members(0), ElementsAre(0, 1));
  EXPECT_THAT(lists.expert_members(0), ElementsAre(2, 4));
  EXPECT_THAT(lists.expert_members(1), ElementsAre(5, 6));
  EXPECT_THAT(lists.expert_members(2), ElementsAre(3, 5));
}

TEST(SharingListsTest, inter_counts_anew_after_every_round) {
  const NeuronLists lists = inter_sharing(eight_neurons(), 1, 3);

  // Third round: one expert each wants 2, 3 and 5, whose column sums are 11, 12 and 17.
  EXPECT_THAT(lists.shared_members(), ElementsAre(0, 1, 5));
  EXPECT_THAT(lists.expert_members(0), ElementsAre(2));
  EXPECT_THAT(lists.expert_members(1), ElementsAre(6));
  EXPECT_THAT(lists.expert_members(2), ElementsAre(3));
}

TEST(SharingListsTest, inter_breaks_ties_by_the_summed_score) {
  const NeuronLists lists = inter_sharing(matrix_of<double>(2, 4, {5, 9, 1, 2, 4, 1, 2, 3}), 1, 1);

  EXPECT_THAT(lists.shared_members(), ElementsAre(1));
  EXPECT_THAT(lists.expert_members(0), ElementsAre(0));
  EXPECT_THAT(lists.expert_members(1), ElementsAre(0));
}

/// Counting from scratch in every round, straight from the definition.
std::vector<std::int32_t> wanted_from_scratch(const Matrix<double>& scores, std::size_t width,
                                              std::size_t wanted) {
  std::vector<std::int32_t> chosen;
  std::vector<bool> is_chosen(scores.cols(), false);
  while (chosen.size() < wanted) {
    std::vector<std::size_t> count(scores.cols(), 0);
    std::vector<double> sum(scores.cols(), 0.0);
    for (std::size_t e = 0; e < scores.rows(); ++e) {
      for (std::size_t j = 0; j < scores.cols(); ++j) {
        sum[j] += scores.row(e)[j];
        std::size_t better = 0;
        for (std::size_t i = 0; i < scores.cols(); ++i)
          better += !is_chosen[i] && (scores.row(e)[i] > scores.row(e)[j] ||
                                      (scores.row(e)[i] == scores.row(e)[j] && i < j));
        count[j] += !is_chosen[j] && better < width;
      }
    }
    const std::size_t most = *std::ranges::max_element(count);
    std::vector<std::int32_t> round;
    for (std::size_t j = 0; j < count.size(); ++j)
      if (!is_chosen[j] && count[j] == most) round.push_back(static_cast<std::int32_t>(j));
    std::ranges::stable_sort(round, [&](std::int32_t a, std::int32_t b) {
      return sum[static_cast<std::size_t>(a)] > sum[static_cast<std::size_t>(b)];
    });
    for (const std::int32_t neuron : round) {
      if (chosen.size() == wanted) break;
      chosen.push_back(neuron);
      is_chosen[static_cast<std::size_t>(neuron)] = true;
    }
  }
  return chosen;
}

TEST(SharingListsTest, counting_as_neurons_are_taken_is_counting_from_scratch) {
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    SCOPED_TRACE(seed);
    RandomStream random(seed, 0, RandomPurpose::verification);
    Matrix<double> scores(4, 30);
    for (double& value : scores.values()) value = static_cast<double>(random.next_below(12));

    EXPECT_EQ(wanted_by_most(scores, 5, 14), wanted_from_scratch(scores, 5, 14));
  }
}

/// A method on a small layer without an activation of note.
class SharingSplitTest : public ::testing::Test {
 protected:
  LayerResult split(const Splitter& method, const SplitConfig& config,
                    const Matrix<double>& importance, std::int64_t layer_index = 0) {
    FfnLayer layer = plain_layer(random_matrix(importance.cols(), 2, 1),
                                 random_matrix(importance.cols(), 2, 2), "relu");
    layer.info.index = layer_index;
    const FixedInputs inputs(random_matrix(4, 2, 3));
    const std::unique_ptr<Backend> backend = make_reference_backend(1);
    SplitWorkspace workspace(*backend);
    const FfnOnBackend ffn(layer, backend->algebra());
    CalibrationTokens tokens(ffn, inputs, 1 << 20);
    const RowSource source = rows_of(layer);
    return method.split({layer.info, config, source, nullptr, {}, &tokens, &importance}, workspace);
  }

  static SplitConfig gradient(const char* sharing, std::int64_t experts, std::int64_t shared) {
    SplitConfig config;
    config.experts = experts;
    config.shared = shared;
    config.sharing = sharing;
    config.score_norm = "none";
    config.recorded = true;
    return config;
  }

  static SplitConfig prune(double keep, const char* criterion) {
    SplitConfig config;
    config.experts = 1;
    config.keep = keep;
    config.criterion = criterion;
    config.score_norm = "none";
    return config;
  }
};

TEST_F(SharingSplitTest, inner_describes_its_lists) {
  SplitConfig config = gradient("inner", 3, 0);
  config.sizes = "3";
  const LayerResult result = split(*make_gradient_splitter(), config, six_neurons());

  ASSERT_TRUE(result.sharing);
  EXPECT_EQ(result.partition.num_neurons(), 0u);
  EXPECT_THAT(result.sharing->expert_members(2), ElementsAre(0, 1, 2));
  EXPECT_EQ(result.method, "gradient");
  EXPECT_EQ(result.router.kind, "centroid");
  EXPECT_EQ(result.router.weight.rows(), 3u);
  EXPECT_EQ(result.centroids.rows(), 3u);
  EXPECT_THAT(result.metrics, ElementsAre(std::pair<std::string, double>("importance_kept", 63)));
}

TEST_F(SharingSplitTest, widths_follow_from_the_counts) {
  EXPECT_EQ(split(*make_gradient_splitter(), gradient("inner", 3, 0), eight_neurons())
                .sharing->expert_members(0)
                .size(),
            3u);
  const LayerResult inter =
      split(*make_gradient_splitter(), gradient("inter", 3, 1), eight_neurons());
  EXPECT_THAT(inter.sharing->members(), ElementsAre(0, 1, 2, 4, 5, 6, 3, 5));
}

TEST_F(SharingSplitTest, least_important_neurons_are_taken_with_min) {
  SplitConfig config = gradient("inner", 3, 0);
  config.sizes = "2";
  config.criterion = "min";
  const LayerResult result = split(*make_gradient_splitter(), config, six_neurons());

  EXPECT_THAT(result.sharing->expert_members(0), ElementsAre(1, 3));
  EXPECT_THAT(result.sharing->expert_members(1), ElementsAre(2, 3));
}

TEST_F(SharingSplitTest, inertia_is_that_of_the_lists_own_means) {
  SplitConfig config = gradient("inner", 3, 0);
  config.sizes = "3";
  config.normalize = "none";
  const LayerResult result = split(*make_gradient_splitter(), config, six_neurons());

  const Matrix<float> up = random_matrix(6, 2, 1);
  double expected = 0;
  for (std::size_t e = 0; e < 3; ++e) {
    for (std::size_t j = 0; j < 2; ++j) {
      double mean = 0;
      for (const std::int32_t i : result.sharing->expert_members(e))
        mean += up.row(static_cast<std::size_t>(i))[j] / 3.0;
      EXPECT_NEAR(result.centroids.row(e)[j], mean, 1e-6);
      for (const std::int32_t i : result.sharing->expert_members(e))
        expected += std::pow(up.row(static_cast<std::size_t>(i))[j] - mean, 2);
    }
  }
  EXPECT_NEAR(result.inertia, expected, 1e-5 * expected);
}

TEST_F(SharingSplitTest, counts_that_do_not_fit_are_told_with_all_numbers) {
  const FfnLayer layer = plain_layer(random_matrix(8, 2, 1), random_matrix(8, 2, 2), "relu");
  SplitConfig config = gradient("inter", 3, 5);
  config.sizes = "2";

  EXPECT_THAT(split_problems(config, layer.info),
              ElementsAre(HasSubstr("5 always-on experts and a routed one of 2 neurons each do not "
                                    "fit into 8 neurons")));
  config.sizes = "1";
  EXPECT_THAT(split_problems(config, layer.info), IsEmpty());
  config = gradient("inner", 3, 0);
  config.sizes = "9";
  EXPECT_THAT(split_problems(config, layer.info), ElementsAre(HasSubstr("9 neurons")));
  config.sizes = "2,3,3";
  EXPECT_THAT(split_problems(config, layer.info), ElementsAre(HasSubstr("--sizes '2,3,3'")));
}

TEST_F(SharingSplitTest, prune_keeps_the_largest_sums_over_the_clusters) {
  // Column sums 23 14 14 9 15 15.
  const LayerResult most = split(*make_prune_splitter(), prune(0.5, "max"), six_neurons());
  EXPECT_THAT(most.sharing->expert_members(0), ElementsAre(0, 4, 5));
  EXPECT_EQ(most.sharing->num_experts(), 1u);
  const LayerResult least = split(*make_prune_splitter(), prune(0.5, "min"), six_neurons());
  EXPECT_THAT(least.sharing->expert_members(0), ElementsAre(1, 2, 3));
  const LayerResult one = split(*make_prune_splitter(), prune(0.01, "max"), six_neurons());
  EXPECT_THAT(one.sharing->members(), ElementsAre(0));
}

TEST_F(SharingSplitTest, prune_counts_whole_products_whole) {
  // 0.29 · 100 is 28.999999999999996 in binary.
  EXPECT_EQ(kept_neurons(prune(0.29, "max"), 100), 29u);
  EXPECT_EQ(kept_neurons(prune(0.999, "max"), 100), 99u);
  EXPECT_EQ(kept_neurons(prune(1, "max"), 100), 100u);
}

TEST_F(SharingSplitTest, random_pruning_keeps_other_neurons_in_every_layer) {
  const Matrix<double> none(0, 40);
  const auto kept = [&](std::int64_t layer, std::uint64_t seed) {
    SplitConfig config = prune(0.5, "random");
    config.kmeans.seed = seed;
    const LayerResult result = split(*make_prune_splitter(), config, none, layer);
    const auto members = result.sharing->members();
    return std::vector<std::int32_t>(members.begin(), members.end());
  };

  EXPECT_EQ(kept(0, 0).size(), 20u);
  EXPECT_TRUE(std::ranges::is_sorted(kept(0, 0)));
  EXPECT_EQ(kept(0, 0), kept(0, 0));
  EXPECT_NE(kept(0, 0), kept(1, 0));
  EXPECT_NE(kept(0, 0), kept(0, 1));
}

}  // namespace
}  // namespace moefy
