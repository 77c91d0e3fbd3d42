#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "coactivation.hpp"
#include "moefy/core/error.hpp"
#include "moefy/split/splitter.hpp"
#include "neuron_graph.hpp"
#include "support/fixed_inputs.hpp"

namespace moefy {
namespace {

using test::FixedInputs;
using test::identity;
using test::matrix_of;
using test::plain_layer;
using test::random_matrix;
using ::testing::ElementsAre;
using ::testing::ElementsAreArray;

std::vector<std::int32_t> all_neurons(std::size_t count) {
  std::vector<std::int32_t> neurons;
  for (std::size_t i = 0; i < count; ++i) neurons.push_back(static_cast<std::int32_t>(i));
  return neurons;
}

/// Co-activation of hidden activations that are the inputs themselves (identity, ReLU).
Matrix<double> coactivation_of(const Matrix<float>& hidden, const SplitConfig& config,
                               std::size_t num_threads = 1) {
  const std::size_t n = hidden.cols();
  const FfnLayer layer = plain_layer(identity(n), identity(n), "relu");
  const FixedInputs inputs(
      matrix_of<float>(hidden.rows(), n, {hidden.values().begin(), hidden.values().end()}));
  test::TokensOnCpu tokens(layer, inputs, 1 << 20, num_threads);
  return count_coactivation(*tokens, config, all_neurons(n));
}

Matrix<float> four_tokens() {
  return matrix_of<float>(4, 4, {1, 1, 0, 0, 1, 0.5F, 0, 0, 0, 0, 2, 1, 0, 0.5F, 1, 1});
}

SplitConfig clamped(std::int64_t block) {
  SplitConfig config;
  config.coactivation = "clamped";
  config.coact_block = block;
  return config;
}

TEST(CoactivationTest, clamps_every_block_of_tokens) {
  EXPECT_THAT(coactivation_of(four_tokens(), clamped(1)).values(),
              ElementsAre(2, 1.5, 0, 0, 1.5, 1.5, .5, .5, 0, .5, 2, 2, 0, .5, 2, 2));
  EXPECT_THAT(coactivation_of(four_tokens(), clamped(2)).values(),
              ElementsAre(1, 1, 0, 0, 1, 1.25, .5, .5, 0, .5, 1, 1, 0, .5, 1, 1));
  EXPECT_THAT(coactivation_of(four_tokens(), clamped(4)).values(),
              ElementsAre(1, 1, 0, 0, 1, 1, .5, .5, 0, .5, 1, 1, 0, .5, 1, 1));
  EXPECT_THAT(coactivation_of(four_tokens(), clamped(0)).values(),
              ElementsAreArray(coactivation_of(four_tokens(), clamped(4)).values()));
}

TEST(CoactivationTest, a_block_that_is_not_full_counts) {
  EXPECT_THAT(coactivation_of(four_tokens(), clamped(3)).values(),
              ElementsAre(1, 1, 0, 0, 1, 1.25, .5, .5, 0, .5, 2, 2, 0, .5, 2, 2));
}

TEST(CoactivationTest, blocks_go_on_over_the_seams_of_token_blocks) {
  // kTokenBlock + 1 tokens with blocks of 3: the last one of the first 4096 begins there.
  Matrix<float> hidden(kTokenBlock + 1, 1);
  for (float& value : hidden.values()) value = 0.5F;
  const double blocks = std::ceil(static_cast<double>(kTokenBlock + 1) / 3);
  const double last = 0.25 * static_cast<double>((kTokenBlock + 1) % 3);
  const double expected = (blocks - 1) * 0.75 + last;
  EXPECT_DOUBLE_EQ(coactivation_of(hidden, clamped(3)).values()[0], expected);
}

TEST(CoactivationTest, product_sums_positive_activations) {
  SplitConfig config;
  config.coactivation = "product";
  const Matrix<double> found = coactivation_of(four_tokens(), config);
  EXPECT_EQ(found.row(0)[0], 2);
  EXPECT_EQ(found.row(0)[1], 1.5);
  EXPECT_EQ(found.row(2)[2], 5);
  EXPECT_EQ(found.row(2)[3], 3);
  EXPECT_EQ(found.row(3)[3], 2);
}

TEST(CoactivationTest, count_marks_the_largest_magnitudes_lowest_id_on_ties) {
  // Two of five are marked: neurons 1 and 2 of the first token, 0 and 1 of the second.
  const FfnLayer layer = plain_layer(identity(5), identity(5), "linear");
  const FixedInputs inputs(matrix_of<float>(2, 5, {1, -3, 3, 0, 2, 0, 0, 0, 0, 0}));
  test::TokensOnCpu tokens(layer, inputs);
  SplitConfig config;
  config.active_fraction = 0.4;
  const Matrix<double> found = count_coactivation(*tokens, config, all_neurons(5));
  EXPECT_THAT(found.values(), ElementsAre(1, 1, 0, 0, 0,  //
                                          1, 2, 1, 0, 0,  //
                                          0, 1, 1, 0, 0,  //
                                          0, 0, 0, 0, 0,  //
                                          0, 0, 0, 0, 0));
}

TEST(CoactivationTest, count_of_relu_layers_marks_what_is_above_zero) {
  SplitConfig config;
  const Matrix<double> found =
      coactivation_of(matrix_of<float>(2, 3, {1, -3, 3, 0, 2, 0.5F}), config);
  EXPECT_THAT(found.values(), ElementsAre(1, 0, 1, 0, 1, 1, 1, 1, 2));
}

TEST(CoactivationTest, at_least_one_neuron_is_marked) {
  EXPECT_EQ(marked_neurons(0.1, 4), 1u);
  EXPECT_EQ(marked_neurons(0.1, 55), 6u);
}

TEST(NeuronGraphTest, edges_begin_at_the_percentile) {
  const Matrix<float> hidden =
      matrix_of<float>(4, 3, {1, 2, 0, .25F, 0, 1, 0, .5F, .5F, 0, .5F, 0});
  const Matrix<double> counts = coactivation_of(hidden, clamped(2));
  EXPECT_THAT(counts.values(), ElementsAre(1, 1, .25, 1, 1.5, .25, .25, .25, 1.25));
  const NeuronGraph graph = coactivation_graph(counts);
  EXPECT_THAT(graph.begin, ElementsAre(0, 2, 4, 6));
  EXPECT_THAT(graph.neighbour, ElementsAre(1, 2, 0, 2, 0, 1));
  EXPECT_THAT(graph.weight, ElementsAre(4, 1, 4, 1, 1, 1));
  EXPECT_EQ(graph.density(), 1);
}

TEST(NeuronGraphTest, the_percentile_rises_while_it_is_zero) {
  const NeuronGraph graph = coactivation_graph(coactivation_of(four_tokens(), clamped(2)));
  EXPECT_THAT(graph.begin, ElementsAre(0, 1, 4, 6, 8));
  EXPECT_THAT(graph.neighbour, ElementsAre(1, 0, 2, 3, 1, 3, 1, 2));
  EXPECT_THAT(graph.weight, ElementsAre(2, 2, 1, 1, 1, 2, 1, 2));
}

TEST(NeuronGraphTest, four_tokens_are_cut_between_the_pairs_that_are_active_together) {
  if (!metis_available()) GTEST_SKIP() << "built without METIS";
  const NeuronGraph graph = coactivation_graph(coactivation_of(four_tokens(), clamped(2)));
  std::vector<std::int32_t> label =
      rebalance_parts(graph, partition_graph(graph, 2, 0), Capacities::balanced(4, 2));
  swap_improving(graph, 2, label);
  EXPECT_EQ(label[0], label[1]);
  EXPECT_EQ(label[2], label[3]);
  EXPECT_NE(label[0], label[2]);
  EXPECT_EQ(edge_cut(graph, label), 2);
}

TEST(NeuronGraphTest, no_coactivation_is_an_error) {
  Matrix<double> zeros(3, 3);
  std::ranges::fill(zeros.values(), 0.0);
  EXPECT_THROW(coactivation_graph(zeros), InputError);
}

NeuronGraph graph_of(std::size_t vertices,
                     const std::vector<std::array<std::int32_t, 3>>& undirected) {
  std::map<std::pair<std::int32_t, std::int32_t>, std::int64_t> edges;
  for (const auto& [a, b, weight] : undirected) edges[{a, b}] = edges[{b, a}] = weight;
  NeuronGraph graph;
  graph.begin.assign(1, 0);
  for (std::int32_t i = 0; i < static_cast<std::int32_t>(vertices); ++i) {
    for (const auto& [edge, weight] : edges) {
      if (edge.first != i) continue;
      graph.neighbour.push_back(edge.second);
      graph.weight.push_back(weight);
    }
    graph.begin.push_back(static_cast<std::int64_t>(graph.neighbour.size()));
  }
  return graph;
}

TEST(NeuronGraphTest, parts_are_made_equal_by_their_edges) {
  const NeuronGraph graph = graph_of(
      6, {{0, 1, 5}, {0, 2, 5}, {1, 2, 5}, {2, 3, 2}, {3, 4, 3}, {3, 5, 1}, {4, 5, 5}, {0, 3, 1}});
  const std::vector<std::int32_t> parts = {0, 0, 0, 0, 1, 1};
  EXPECT_EQ(edge_cut(graph, parts), 4);
  const std::vector<std::int32_t> label = rebalance_parts(graph, parts, Capacities::balanced(6, 2));
  EXPECT_THAT(label, ElementsAre(0, 0, 0, 1, 1, 1));
  EXPECT_EQ(edge_cut(graph, label), 3);
}

TEST(NeuronGraphTest, swaps_find_two_triangles) {
  const NeuronGraph graph =
      graph_of(6, {{0, 1, 1}, {0, 2, 1}, {1, 2, 1}, {3, 4, 1}, {3, 5, 1}, {4, 5, 1}, {2, 3, 1}});
  std::vector<std::int32_t> label = {0, 1, 0, 1, 0, 1};
  swap_improving(graph, 2, label);
  EXPECT_EQ(edge_cut(graph, label), 1);
  EXPECT_EQ(std::ranges::count(label, 0), 3);
}

TEST(NeuronGraphTest, swaps_never_raise_the_cut) {
  RandomStream random(3, 0, RandomPurpose::verification);
  std::vector<std::array<std::int32_t, 3>> edges;
  for (std::int32_t a = 0; a < 40; ++a)
    for (std::int32_t b = a + 1; b < 40; ++b)
      if (random.next_below(3) == 0)
        edges.push_back({a, b, static_cast<std::int32_t>(random.next_below(9)) + 1});
  const NeuronGraph graph = graph_of(40, edges);
  std::vector<std::int32_t> label;
  for (std::int32_t i = 0; i < 40; ++i) label.push_back(i % 4);
  const std::int64_t before = edge_cut(graph, label);
  swap_improving(graph, 4, label);
  EXPECT_LT(edge_cut(graph, label), before);
  for (std::int32_t e = 0; e < 4; ++e) EXPECT_EQ(std::ranges::count(label, e), 10);
}

TEST(NeuronGraphTest, metis_cuts_the_bridge) {
  if (!metis_available()) GTEST_SKIP() << "built without METIS";
  const NeuronGraph graph =
      graph_of(6, {{0, 1, 1}, {0, 2, 1}, {1, 2, 1}, {3, 4, 1}, {3, 5, 1}, {4, 5, 1}, {2, 3, 1}});
  EXPECT_EQ(edge_cut(graph, partition_graph(graph, 2, 0)), 1);
  EXPECT_THAT(partition_graph(graph, 1, 0), ElementsAre(0, 0, 0, 0, 0, 0));
}

/// A layer with recordings, and what a method makes of it.
class RecordedMethodTest : public ::testing::Test {
 protected:
  LayerResult split(const Splitter& method, const FfnLayer& layer, const FixedInputs& inputs,
                    const SplitConfig& config, const Matrix<double>* importance = nullptr,
                    std::size_t num_threads = 2, std::size_t cache = 1 << 20) {
    test::TokensOnCpu tokens(layer, inputs, cache, num_threads);
    SplitWorkspace workspace(tokens.backend());
    const RowSource source = rows_of(layer);
    const SplitTask task{layer.info, config, source, nullptr, {}, &*tokens, importance};
    return method.split(task, workspace);
  }

  LayerResult gradient_result(const Matrix<double>& importance, const SplitConfig& config) {
    const std::size_t n = importance.cols();
    const FfnLayer layer = plain_layer(random_matrix(n, 2, 1), random_matrix(n, 2, 2), "relu");
    const FixedInputs inputs(random_matrix(4, 2, 3));
    return split(*make_gradient_splitter(), layer, inputs, config, &importance);
  }

  std::vector<std::int32_t> gradient(const Matrix<double>& importance, const SplitConfig& config) {
    const LayerResult result = gradient_result(importance, config);
    return {result.partition.labels().begin(), result.partition.labels().end()};
  }

  /// The total score of the labels; of a criterion min the negative sum.
  double importance_kept(const Matrix<double>& importance, const SplitConfig& config) {
    const LayerResult result = gradient_result(importance, config);
    const std::map<std::string, double> metrics(result.metrics.begin(), result.metrics.end());
    return metrics.at("importance_kept");
  }

  /// Scores are compared as they are recorded.
  static SplitConfig unnormalized(std::int64_t num_experts, std::int64_t shared = 0) {
    SplitConfig config = experts(num_experts, shared);
    config.score_norm = "none";
    return config;
  }

  static SplitConfig experts(std::int64_t experts, std::int64_t shared = 0) {
    SplitConfig config;
    config.experts = experts;
    config.shared = shared;
    config.recorded = true;
    return config;
  }
};

using GradientSplitTest = RecordedMethodTest;

TEST_F(GradientSplitTest, exact_is_the_smallest_of_the_best_labels_and_greedy_the_known_one) {
  const Matrix<double> scores =
      matrix_of<double>(3, 6, {9, 1, 8, 2, 7, 3, 9, 8, 1, 2, 3, 7, 5, 5, 5, 5, 5, 5});
  SplitConfig config = unnormalized(3);
  EXPECT_THAT(gradient(scores, config), ElementsAre(0, 1, 0, 2, 2, 1));
  EXPECT_EQ(importance_kept(scores, config), 42);
  config.criterion = "min";
  EXPECT_THAT(gradient(scores, config), ElementsAre(2, 0, 1, 0, 1, 2));
  EXPECT_EQ(importance_kept(scores, config), -17);
  // The greedy ways reach the same sums.
  config.assign = "greedy";
  EXPECT_THAT(gradient(scores, config), ElementsAre(2, 0, 1, 1, 2, 0));
  EXPECT_EQ(importance_kept(scores, config), -17);
  config.criterion = "max";
  EXPECT_THAT(gradient(scores, config), ElementsAre(1, 1, 0, 2, 0, 2));
  EXPECT_EQ(importance_kept(scores, config), 42);
}

TEST_F(GradientSplitTest, uneven_sizes) {
  const Matrix<double> scores =
      matrix_of<double>(3, 7, {7, 1, 2, 3, 1, 5, 1, 5, 8, 7, 7, 7, 8, 3, 6, 2, 1, 3, 8, 4, 5});
  SplitConfig config = unnormalized(3);
  EXPECT_THAT(gradient(scores, config), ElementsAre(0, 1, 1, 1, 2, 0, 2));
  EXPECT_EQ(importance_kept(scores, config), 47);
  config.assign = "greedy";
  EXPECT_THAT(gradient(scores, config), ElementsAre(0, 1, 1, 0, 2, 1, 2));
  EXPECT_EQ(importance_kept(scores, config), 46);
}

TEST_F(GradientSplitTest, neurons_that_many_want_are_shared) {
  const Matrix<double> scores = matrix_of<double>(
      3, 8, {9, 1, 8, 2, 7, 3, 6, 4, 9, 8, 1, 2, 3, 7, 6, 5, 1, 9, 2, 8, 3, 7, 4, 6});
  SplitConfig config = unnormalized(3, 1);
  EXPECT_THAT(gradient(scores, config), ElementsAre(-1, -1, 0, 2, 0, 1, 1, 2));
  config.assign = "greedy";
  EXPECT_THAT(gradient(scores, config), ElementsAre(-1, -1, 0, 2, 0, 2, 1, 1));
}

TEST_F(GradientSplitTest, scale_of_a_cluster_does_not_matter_after_normalising) {
  const Matrix<double> scores =
      matrix_of<double>(3, 6, {9, 1, 8, 2, 7, 3, 9, 8, 1, 2, 3, 7, 5, 4, 6, 5, 2, 5});
  Matrix<double> scaled = matrix_of<double>(3, 6, {scores.values().begin(), scores.values().end()});
  for (double& value : scaled.row(1)) value *= 1000;
  for (const char* how : {"sum", "rank", "zscore"}) {
    SplitConfig config = experts(3);
    config.score_norm = how;
    EXPECT_EQ(gradient(scaled, config), gradient(scores, config)) << how;
  }
  // Divided by the sums the best labels are these alone; as they are, the loud cluster decides.
  EXPECT_EQ(experts(3).score_norm, "sum");
  EXPECT_THAT(gradient(scaled, experts(3)), ElementsAre(0, 1, 2, 2, 0, 1));
  EXPECT_THAT(gradient(scaled, unnormalized(3)), ElementsAre(1, 1, 0, 2, 0, 2));
}

TEST_F(GradientSplitTest, too_few_clusters_are_refused) {
  EXPECT_THROW(gradient(matrix_of<double>(2, 6, std::vector<double>(12, 1.0)), experts(3)),
               UsageError);
}

using ActivationSplitTest = RecordedMethodTest;

TEST_F(ActivationSplitTest, finds_neurons_that_are_active_together) {
  // Even neurons answer to x0 > 0, odd ones to x0 < 0; a second coordinate blurs the weights.
  Matrix<float> up(8, 2);
  for (std::size_t i = 0; i < 8; ++i) {
    up.row(i)[0] = i % 2 == 0 ? 1.0F : -1.0F;
    up.row(i)[1] = i < 4 ? 2.0F : -2.0F;
  }
  Matrix<float> inputs = random_matrix(300, 2, 5);
  for (std::size_t t = 0; t < inputs.rows(); ++t) inputs.row(t)[1] *= 0.01F;
  const FfnLayer layer = plain_layer(std::move(up), random_matrix(8, 2, 6), "relu");

  const LayerResult result =
      split(*make_activation_splitter(), layer, FixedInputs(std::move(inputs)), experts(2));

  const auto labels = result.partition.labels();
  for (std::size_t i = 2; i < 8; ++i) EXPECT_EQ(labels[i], labels[i % 2]) << i;
  EXPECT_NE(labels[0], labels[1]);
  const std::map<std::string, double> metrics(result.metrics.begin(), result.metrics.end());
  EXPECT_LE(metrics.at("pattern_inertia"), metrics.at("pattern_inertia_first"));
  EXPECT_EQ(result.router.kind, "centroid");
  EXPECT_EQ(result.method, "activation");
}

TEST_F(RecordedMethodTest, every_method_shares_the_most_energetic_and_ignores_threads_and_cache) {
  const std::size_t tokens = kTokenBlock + 100;
  Matrix<float> down = random_matrix(24, 6, 2);
  for (const std::size_t strong : {3U, 11U, 17U, 20U})
    for (float& value : down.row(strong)) value *= 30;
  const FfnLayer layer = plain_layer(random_matrix(24, 6, 1), std::move(down), "gelu");
  const FixedInputs inputs(random_matrix(tokens, 6, 3));
  SplitConfig config = experts(5, 1);
  config.top_k = 2;
  for (const auto& make : {make_activation_splitter, make_coactivation_splitter,
                           make_kmeans_splitter, make_routed_splitter}) {
    const std::unique_ptr<Splitter> method = make();
    if (method->name() == "coactivation" && !metis_available()) continue;
    const LayerResult one = split(*method, layer, inputs, config, nullptr, 1, 1 << 30);
    const LayerResult other = split(*method, layer, inputs, config, nullptr, 2, 0);
    EXPECT_EQ(one.partition, other.partition) << method->name();
    EXPECT_EQ(one.metrics, other.metrics) << method->name();
    EXPECT_TRUE(std::ranges::equal(one.router.weight.values(), other.router.weight.values()))
        << method->name();
    // The method that chooses its shared neurons by routing may choose others.
    if (method->name() == "routed") continue;
    EXPECT_THAT(one.partition.shared_members(), ElementsAre(3, 11, 17, 20)) << method->name();
  }
}

TEST_F(RecordedMethodTest, order_by_activity_puts_the_most_energetic_first) {
  Matrix<float> up = identity(4);
  const FfnLayer layer = plain_layer(std::move(up),
                                     matrix_of<float>(4, 4,
                                                      {1, 0, 0, 0, 3, 0, 0, 0,  //
                                                       2, 0, 0, 0, 4, 0, 0, 0}),
                                     "relu");
  const FixedInputs inputs(matrix_of<float>(2, 4, {1, 1, 1, 1, 1, 1, 1, 1}));
  SplitConfig config = experts(1);
  config.order = "activity";
  const LayerResult result = split(*make_kmeans_splitter(), layer, inputs, config);
  EXPECT_THAT(result.partition.members(), ElementsAre(3, 1, 2, 0));
}

}  // namespace
}  // namespace moefy
