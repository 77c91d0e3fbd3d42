#include "map_compare.hpp"

#include <algorithm>

namespace moefy::test {
namespace {

void expect_equal_matrices(const Matrix<float>& a, const Matrix<float>& b) {
  EXPECT_EQ(a.rows(), b.rows());
  EXPECT_EQ(a.cols(), b.cols());
  EXPECT_TRUE(std::ranges::equal(a.values(), b.values()));
}

}  // namespace

void expect_equal_layers(const LayerResult& a, const LayerResult& b) {
  SCOPED_TRACE("layer " + std::to_string(a.layer_index));
  EXPECT_EQ(a.layer_index, b.layer_index);
  EXPECT_EQ(a.name, b.name);
  EXPECT_EQ(a.hidden_size, b.hidden_size);
  EXPECT_EQ(a.method, b.method);
  EXPECT_EQ(a.weights, b.weights);
  EXPECT_EQ(a.activation, b.activation);
  EXPECT_EQ(a.normalize, b.normalize);
  EXPECT_EQ(a.partition, b.partition);
  EXPECT_EQ(a.sharing, b.sharing);
  EXPECT_EQ(a.score_scale, b.score_scale);
  expect_equal_matrices(a.centroids, b.centroids);
  EXPECT_EQ(a.prices, b.prices);
  EXPECT_EQ(a.router.kind, b.router.kind);
  EXPECT_EQ(a.router.bias, b.router.bias);
  EXPECT_EQ(a.router.logit_std, b.router.logit_std);
  expect_equal_matrices(a.router.weight, b.router.weight);
  expect_equal_matrices(a.router.output, b.router.output);
  EXPECT_EQ(a.inertia, b.inertia);
  EXPECT_EQ(a.inertia_initial, b.inertia_initial);
  EXPECT_EQ(a.inertia_random, b.inertia_random);
  EXPECT_EQ(a.inertia_unconstrained, b.inertia_unconstrained);
  EXPECT_EQ(a.duality_gap, b.duality_gap);
  EXPECT_EQ(a.cost_scale_log2, b.cost_scale_log2);
  EXPECT_EQ(a.iterations, b.iterations);
  EXPECT_EQ(a.converged, b.converged);
  EXPECT_EQ(a.stop_reason, b.stop_reason);
  EXPECT_EQ(a.fingerprint, b.fingerprint);
  EXPECT_EQ(a.inertia_trace, b.inertia_trace);
  EXPECT_EQ(a.augmentations, b.augmentations);
  EXPECT_EQ(a.surplus, b.surplus);
  EXPECT_EQ(a.zero_rows, b.zero_rows);
  EXPECT_EQ(a.metrics, b.metrics);
}

void expect_equal_maps(const ExpertMap& a, const ExpertMap& b) {
  EXPECT_EQ(a.header.model_type, b.header.model_type);
  EXPECT_EQ(a.header.architecture, b.header.architecture);
  EXPECT_EQ(a.header.num_layers, b.header.num_layers);
  EXPECT_EQ(a.header.seed, b.header.seed);
  EXPECT_EQ(a.header.top_k, b.header.top_k);
  EXPECT_EQ(a.header.source_fingerprint, b.header.source_fingerprint);
  EXPECT_EQ(a.header.config, b.header.config);
  EXPECT_EQ(a.header.refit_file, b.header.refit_file);
  EXPECT_EQ(a.header.refit_fingerprint, b.header.refit_fingerprint);
  ASSERT_EQ(a.layers.size(), b.layers.size());
  for (std::size_t i = 0; i < a.layers.size(); ++i) expect_equal_layers(a.layers[i], b.layers[i]);
  EXPECT_EQ(a.run.attributes, b.run.attributes);
  ASSERT_EQ(a.run.times.size(), b.run.times.size());
  for (std::size_t i = 0; i < a.run.times.size(); ++i) {
    EXPECT_EQ(a.run.times[i].layer_index, b.run.times[i].layer_index);
    EXPECT_EQ(a.run.times[i].phase, b.run.times[i].phase);
    EXPECT_EQ(a.run.times[i].seconds, b.run.times[i].seconds);
    EXPECT_EQ(a.run.times[i].rank, b.run.times[i].rank);
  }
}

}  // namespace moefy::test
