#include <algorithm>
#include <cmath>
#include <numeric>

#include "mlp_router.hpp"
#include "moefy/core/error.hpp"
#include "moefy/router/router_fitter.hpp"

namespace moefy {

namespace {

/// Rows are the experts' mean unit gate rows, the second layer the identity: at first the scores
/// are those of the centroid router, squashed.
RouterWeights start_from_centroids(const RouterTask& task, const std::string& kind) {
  RouterWeights router = make_centroid_fitter()->fit(task);
  router.kind = kind;
  const std::size_t experts = router.weight.rows();
  router.output.resize(experts, experts);
  std::ranges::fill(router.output.values(), 0.0F);
  for (std::size_t e = 0; e < experts; ++e) router.output.row(e)[e] = 1.0F;
  return router;
}

/// The `count` largest of a row, lowest number on ties.
std::vector<std::size_t> largest(std::span<const float> row, std::size_t count) {
  std::vector<std::size_t> order(row.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::stable_sort(order, [&](std::size_t a, std::size_t b) { return row[a] > row[b]; });
  order.resize(count);
  return order;
}

/// Scores of every token [num_tokens, num_experts].
Matrix<float> scores_of_tokens(const RouterTask& task, ExpertScore score) {
  LinearAlgebra& algebra = task.tokens->algebra();
  const std::unique_ptr<ExpertLists> lists = algebra.make_lists(members_of(task.lists), {});
  const std::unique_ptr<BackendMatrix> scores = algebra.make_matrix();
  Matrix<float> all(task.tokens->num_tokens(), task.lists.num_experts());
  task.tokens->for_each_block([&](const CalibrationTokens::Block& block) {
    algebra.expert_scores(block.hidden, *lists, score, *scores);
    std::ranges::copy(std::as_const(*scores).on_host().values(), all.row(block.first).data());
  });
  return all;
}

/// MoEfication's router (ACL Findings 2022, section 3.2): two layers with tanh, trained to tell
/// each expert's share of the largest oracle score of the token.
class MlpFitter : public RouterFitter {
 public:
  std::string name() const override { return "mlp"; }
  bool needs_recordings() const override { return true; }

  RouterWeights fit(const RouterTask& task) const override {
    Matrix<float> target = scores_of_tokens(task, kOracleScore);
    for (std::size_t t = 0; t < target.rows(); ++t) {
      const float most = *std::ranges::max_element(target.row(t));
      if (most > 0)
        for (float& value : target.row(t)) value /= most;
    }
    RouterTraining training;
    if (task.config.epochs > 0) training.epochs = task.config.epochs;
    training.seed = task.config.seed;
    const std::size_t experts = target.cols();
    const std::size_t count = std::max<std::size_t>(1, experts / 5);
    // Captured mass with a fifth of the experts.
    const RouterJudge judge = [&](MatrixView<const float> scores, std::size_t token) {
      const std::span<const float> mass = target.row(token);
      const double all = std::accumulate(mass.begin(), mass.end(), 0.0);
      double captured = 0;
      for (const std::size_t e : largest(scores.row(0), count)) captured += mass[e];
      return all > 0 ? captured / all : 0.0;
    };
    RouterWeights router = start_from_centroids(task, name());
    train_router(router, *task.tokens, target, training, judge, task.stop);
    return router;
  }
};

/// LLaMA-MoE's gate trained on statistics: two layers with tanh, told which experts are among the
/// top-k by score (or, with --target softmax, the distribution of the scores).
class MlpTopkFitter : public RouterFitter {
 public:
  std::string name() const override { return "mlp-topk"; }
  bool needs_recordings() const override { return true; }
  std::vector<std::string> targets() const override { return {"topk", "softmax"}; }

  RouterWeights fit(const RouterTask& task) const override {
    if (task.config.top_k < 1)
      throw UsageError("--router mlp-topk needs --top-k K, the experts a token is sent to");
    const auto count = static_cast<std::size_t>(task.config.top_k);
    Matrix<float> target = scores_of_tokens(task, expert_score_named(task.config.score));
    std::vector<std::vector<std::size_t>> wanted;
    for (std::size_t t = 0; t < target.rows(); ++t) wanted.push_back(largest(target.row(t), count));
    const bool softmax = task.config.target == "softmax";
    for (std::size_t t = 0; t < target.rows(); ++t)
      softmax ? to_distribution(target.row(t)) : to_marks(target.row(t), wanted[t]);

    RouterTraining training;
    training.loss = softmax ? RouterLoss::softmax : RouterLoss::binary;
    training.epochs = task.config.epochs > 0 ? task.config.epochs : 100;
    training.batch = 1024;
    training.weight_decay = 0.01;
    training.decay_on_plateau = true;
    training.validation = 0.05;
    training.seed = task.config.seed;
    const RouterJudge judge = [&](MatrixView<const float> scores, std::size_t token) {
      double hits = 0;
      for (const std::size_t e : largest(scores.row(0), count))
        hits += std::ranges::find(wanted[token], e) != wanted[token].end() ? 1 : 0;
      return hits / static_cast<double>(count);
    };
    RouterWeights router = start_from_centroids(task, name());
    train_router(router, *task.tokens, target, training, judge, task.stop);
    return router;
  }

 private:
  static void to_marks(std::span<float> row, std::span<const std::size_t> wanted) {
    std::ranges::fill(row, 0.0F);
    for (const std::size_t e : wanted) row[e] = 1.0F;
  }

  static void to_distribution(std::span<float> row) {
    const float most = *std::ranges::max_element(row);
    double total = 0;
    for (float& value : row) total += value = std::exp(value - most);
    for (float& value : row) value = static_cast<float>(value / total);
  }
};

}  // namespace

std::unique_ptr<RouterFitter> make_mlp_fitter() { return std::make_unique<MlpFitter>(); }
std::unique_ptr<RouterFitter> make_mlp_topk_fitter() { return std::make_unique<MlpTopkFitter>(); }

}  // namespace moefy
