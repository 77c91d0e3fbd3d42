#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "moefy/core/error.hpp"
#include "moefy/core/random.hpp"
#include "moefy/split/splitter.hpp"

namespace moefy {
namespace {

/// A layer of the three matrices of a gated FFN, in memory.
struct MemoryLayer {
  LayerInfo info;
  Matrix<float> gate, up, down;

  MemoryLayer(std::size_t neurons, std::size_t hidden, std::uint64_t seed = 0)
      : gate(neurons, hidden), up(neurons, hidden), down(neurons, hidden) {
    info.name = "model.layers.3.mlp";
    info.index = 3;
    info.num_neurons = static_cast<std::int64_t>(neurons);
    info.hidden_size = static_cast<std::int64_t>(hidden);
    info.activation = "silu";
    for (const FfnRole role : {FfnRole::gate, FfnRole::up, FfnRole::down}) {
      FfnTensor tensor;
      tensor.role = role;
      info.tensors.push_back(tensor);
      RandomStream random(seed, static_cast<std::uint64_t>(role), RandomPurpose::verification);
      for (float& value : of(role).values()) value = random.next_normal();
    }
  }
  Matrix<float>& of(FfnRole role) {
    return role == FfnRole::gate ? gate : role == FfnRole::up ? up : down;
  }
  RowSource source() {
    return [this](FfnRole role, MatrixView<float> out) {
      ASSERT_EQ(out.rows, of(role).rows());
      std::ranges::copy(of(role).values(), out.values().begin());
    };
  }
};

LayerResult split(const Splitter& splitter, MemoryLayer& layer, const SplitConfig& config,
                  const LayerResult* start = nullptr) {
  const std::unique_ptr<Backend> backend = make_cpu_backend(1);
  SplitWorkspace workspace(*backend);
  const RowSource source = layer.source();
  return splitter.split({layer.info, config, source, start, {}}, workspace);
}

SplitConfig config_of(std::int64_t experts, std::int64_t shared = 0) {
  SplitConfig config;
  config.experts = experts;
  config.shared = shared;
  return config;
}

TEST(KMeansSplitterTest, groups_unit_rows_whatever_their_length) {
  MemoryLayer layer(4, 2);
  std::ranges::copy(std::vector<float>{1, 0, 2, 0, 0, 1, 0, 3}, layer.gate.values().begin());

  const LayerResult result = split(*make_kmeans_splitter(), layer, config_of(2));

  EXPECT_EQ(
      std::vector<std::int32_t>(result.partition.labels().begin(), result.partition.labels().end()),
      (std::vector<std::int32_t>{0, 0, 1, 1}));
  EXPECT_EQ(result.inertia, 0);
  EXPECT_EQ(result.duality_gap, 0);
  EXPECT_EQ(result.stop_reason, StopReason::fixpoint);
  EXPECT_EQ(result.centroids.row(1)[1], 1.0f);
}

TEST(KMeansSplitterTest, pairs_the_nearest_unit_rows) {
  MemoryLayer layer(4, 2);
  std::ranges::copy(std::vector<float>{1, 0, 0.8F, 0.6F, 0, 1, -0.6F, 0.8F},
                    layer.gate.values().begin());

  const LayerResult result = split(*make_kmeans_splitter(), layer, config_of(2));

  EXPECT_TRUE(std::ranges::equal(result.partition.labels(), std::vector<std::int32_t>{0, 0, 1, 1}));
  EXPECT_NEAR(result.inertia, 0.4, 1e-6);
}

/// `copies` rows near each of `groups` random unit vectors, in the order of a random permutation.
/// `noise_seed` draws what they differ by from them.
MemoryLayer planted_layer(std::size_t groups, std::size_t copies, std::uint64_t noise_seed) {
  MemoryLayer layer(groups * copies, 256);
  Matrix<float> center(groups, 256);
  RandomStream random(1, 0, RandomPurpose::verification);
  for (std::size_t g = 0; g < groups; ++g) {
    double squares = 0;
    for (float& value : center.row(g)) {
      value = random.next_normal();
      squares += static_cast<double>(value) * value;
    }
    for (float& value : center.row(g)) value /= static_cast<float>(std::sqrt(squares));
  }
  std::vector<std::size_t> place(groups * copies);
  std::iota(place.begin(), place.end(), std::size_t{0});
  for (std::size_t i = place.size(); i-- > 1;) std::swap(place[i], place[random.next_below(i + 1)]);
  RandomStream noise(noise_seed, 1, RandomPurpose::verification);
  for (std::size_t i = 0; i < place.size(); ++i) {
    const auto from = center.row(i % groups);
    const auto to = layer.gate.row(place[i]);
    for (std::size_t j = 0; j < to.size(); ++j) to[j] = from[j] + 0.0005F * noise.next_normal();
  }
  return layer;
}

TEST(KMeansSplitterTest, finds_planted_groups_and_knows_them_again) {
  MemoryLayer layer = planted_layer(64, 48, 2);
  SplitConfig config = config_of(64);
  config.kmeans.start = StartMethod::kmeanspp;
  config.kmeans.num_redo = 10;
  const LayerResult found = split(*make_kmeans_splitter(), layer, config);
  // 48 rows within sigma 0.0005 in 256 dimensions: nothing but the noise is left.
  EXPECT_NEAR(found.inertia, 64 * 47 * 256 * 0.0005 * 0.0005, 0.05);
  EXPECT_EQ(found.duality_gap, 0);

  MemoryLayer later = planted_layer(64, 48, 3);
  const LayerResult again = split(*make_kmeans_splitter(), later, config, &found);

  EXPECT_TRUE(std::ranges::equal(again.partition.labels(), found.partition.labels()));
  EXPECT_EQ(again.iterations, 1);
}

TEST(KMeansSplitterTest, numbers_experts_by_their_smallest_neuron) {
  MemoryLayer layer(60, 8);

  const LayerResult result = split(*make_kmeans_splitter(), layer, config_of(6));

  std::int32_t next = 0;
  for (const std::int32_t label : result.partition.labels()) {
    EXPECT_LE(label, next);
    next = std::max(next, label + 1);
  }
}

TEST(KMeansSplitterTest, describes_the_returned_centroids) {
  MemoryLayer layer(60, 8);
  SplitConfig config = config_of(6);
  config.normalize = "none";

  const LayerResult result = split(*make_kmeans_splitter(), layer, config);

  double inertia = 0;
  for (std::size_t i = 0; i < 60; ++i) {
    const auto expert = static_cast<std::size_t>(result.partition.labels()[i]);
    for (std::size_t j = 0; j < 8; ++j) {
      const double difference = layer.gate.row(i)[j] - result.centroids.row(expert)[j];
      inertia += difference * difference;
    }
  }
  EXPECT_NEAR(result.inertia, inertia, 1e-4 * inertia);
  EXPECT_LT(result.inertia, result.inertia_random);
  EXPECT_LE(result.inertia_unconstrained, result.inertia * (1 + 1e-6));
}

TEST(KMeansSplitterTest, shared_neurons_have_the_largest_product_of_norms) {
  MemoryLayer layer(12, 4);
  for (const std::size_t loud : {2u, 7u, 9u})
    for (FfnRole role : {FfnRole::gate, FfnRole::up, FfnRole::down})
      for (float& value : layer.of(role).row(loud)) value *= 10;

  const LayerResult result = split(*make_kmeans_splitter(), layer, config_of(3, 1));

  EXPECT_EQ(std::vector<std::int32_t>(result.partition.shared_members().begin(),
                                      result.partition.shared_members().end()),
            (std::vector<std::int32_t>{2, 7, 9}));
  for (std::size_t e = 0; e < 3; ++e) EXPECT_EQ(result.partition.expert_members(e).size(), 3u);
}

TEST(KMeansSplitterTest, warm_start_keeps_the_numbers) {
  MemoryLayer layer(60, 8);
  LayerResult first = split(*make_kmeans_splitter(), layer, config_of(6));
  std::vector<std::int32_t> renamed(first.partition.labels().begin(),
                                    first.partition.labels().end());
  for (std::int32_t& label : renamed) label = 5 - label;
  first.partition = Partition::from_labels(renamed, 6, 0);
  std::ranges::reverse(first.prices);

  const LayerResult again = split(*make_kmeans_splitter(), layer, config_of(6), &first);

  EXPECT_TRUE(std::ranges::equal(again.partition.labels(), renamed));
  EXPECT_EQ(again.iterations, 1);
}

TEST(KMeansSplitterTest, order_by_norm_puts_the_largest_first) {
  MemoryLayer layer(24, 4);
  SplitConfig config = config_of(3);
  config.order = "norm";

  const LayerResult result = split(*make_kmeans_splitter(), layer, config);

  for (std::size_t e = 0; e < 3; ++e) {
    double last = 1e30;
    for (const std::int32_t neuron : result.partition.expert_members(e)) {
      double norm = 0;
      for (const float value : layer.gate.row(static_cast<std::size_t>(neuron)))
        norm += static_cast<double>(value) * value;
      EXPECT_LE(norm, last * (1 + 1e-12));
      last = norm;
    }
  }
}

TEST(KMeansSplitterTest, router_comes_from_gate_rows_whatever_is_clustered) {
  MemoryLayer layer(24, 4);
  SplitConfig config = config_of(3);
  config.weights = "down";

  const LayerResult result = split(*make_kmeans_splitter(), layer, config);

  double mean[4] = {};
  for (const std::int32_t neuron : result.partition.expert_members(0)) {
    const auto row = layer.gate.row(static_cast<std::size_t>(neuron));
    double norm = 0;
    for (const float value : row) norm += static_cast<double>(value) * value;
    for (std::size_t j = 0; j < 4; ++j) mean[j] += row[j] / std::sqrt(norm);
  }
  const double length = std::hypot(std::hypot(mean[0], mean[1]), std::hypot(mean[2], mean[3]));
  for (std::size_t j = 0; j < 4; ++j)
    EXPECT_NEAR(result.router.weight.row(0)[j], mean[j] / length, 1e-5);
}

TEST(RandomSplitterTest, depends_on_seed_and_layer_only) {
  MemoryLayer layer(31, 4, 0);
  MemoryLayer other(31, 4, 1);
  SplitConfig config = config_of(4);
  const auto labels = [&](MemoryLayer& of) {
    const LayerResult result = split(*make_random_splitter(), of, config);
    return std::vector<std::int32_t>(result.partition.labels().begin(),
                                     result.partition.labels().end());
  };

  const std::vector<std::int32_t> first = labels(layer);
  EXPECT_EQ(labels(other), first);
  other.info.index = 4;
  EXPECT_NE(labels(other), first);
  config.kmeans.seed = 1;
  EXPECT_NE(labels(layer), first);
  std::vector<int> count(4);
  for (const std::int32_t label : first) ++count[static_cast<std::size_t>(label)];
  EXPECT_EQ(count, (std::vector<int>{8, 8, 8, 7}));
}

TEST(ContiguousSplitterTest, keeps_the_order_of_the_file) {
  MemoryLayer layer(7, 4);

  const LayerResult result = split(*make_contiguous_splitter(), layer, config_of(3));

  EXPECT_TRUE(std::ranges::equal(result.partition.labels(),
                                 std::vector<std::int32_t>{0, 0, 0, 1, 1, 2, 2}));
  EXPECT_EQ(result.stop_reason, StopReason::not_clustered);
  EXPECT_GE(result.duality_gap, 0);
}

TEST(SplitProblemsTest, name_what_does_not_fit) {
  const MemoryLayer layer(10, 4);
  const auto problem = [&](const SplitConfig& config) {
    const std::vector<std::string> found = split_problems(config, layer.info);
    return found.empty() ? std::string() : found.front();
  };

  EXPECT_EQ(problem(config_of(10)), "");
  EXPECT_NE(problem(config_of(11)).find("10 neurons"), std::string::npos);
  SplitConfig sizes = config_of(3);
  sizes.sizes = "3,3,4";
  EXPECT_EQ(problem(sizes), "");
  sizes.sizes = "3,3,3";
  EXPECT_NE(problem(sizes).find("9 to 9"), std::string::npos);
  sizes.sizes = "1..4";
  EXPECT_EQ(problem(sizes), "");
  for (const char* bad : {"", "3,x", "4..1", "3,3", "-1..9", "a..b"}) {
    sizes.sizes = bad;
    EXPECT_NE(problem(sizes), "") << bad;
  }
}

TEST(SizesTest, sizes_by_expert_stay_with_their_expert) {
  MemoryLayer layer(12, 4);
  SplitConfig config = config_of(3);
  config.sizes = "2,4,6";

  for (const auto& splitter :
       {make_kmeans_splitter(), make_random_splitter(), make_contiguous_splitter()}) {
    const LayerResult result = split(*splitter, layer, config);
    EXPECT_EQ(result.partition.expert_members(0).size(), 2u) << splitter->name();
    EXPECT_EQ(result.partition.expert_members(2).size(), 6u) << splitter->name();
  }
}

TEST(RolesReadTest, are_the_shared_experts_the_clustered_and_the_routers) {
  const MemoryLayer layer(10, 4);
  SplitConfig config = config_of(2);
  EXPECT_EQ(roles_read(config, layer.info), (std::vector<FfnRole>{FfnRole::gate}));
  config.weights = "down";
  EXPECT_EQ(roles_read(config, layer.info), (std::vector<FfnRole>{FfnRole::down, FfnRole::gate}));
  config.shared = 1;
  EXPECT_EQ(roles_read(config, layer.info),
            (std::vector<FfnRole>{FfnRole::gate, FfnRole::up, FfnRole::down, FfnRole::down,
                                  FfnRole::gate}));
}

TEST(RolesReadTest, are_what_every_method_asks_for_in_this_order) {
  MemoryLayer layer(12, 4);
  for (const char* weights : {"gate", "up", "down", "concat"}) {
    for (const std::int64_t shared : {0, 1}) {
      SplitConfig config = config_of(3 - shared);
      config.weights = weights;
      config.shared = shared;
      for (const auto& splitter :
           {make_kmeans_splitter(), make_random_splitter(), make_contiguous_splitter()}) {
        std::vector<FfnRole> asked;
        const std::unique_ptr<Backend> backend = make_cpu_backend(1);
        SplitWorkspace workspace(*backend);
        const RowSource rows = layer.source();
        const RowSource source = [&](FfnRole role, MatrixView<float> out) {
          asked.push_back(role);
          rows(role, out);
        };
        splitter->split({layer.info, config, source, nullptr, {}}, workspace);
        EXPECT_EQ(asked, roles_read(config, layer.info))
            << weights << ' ' << shared << ' ' << splitter->name();
      }
    }
  }
}

}  // namespace
}  // namespace moefy
