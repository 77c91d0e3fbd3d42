#include "moefy/router/ridge_router.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>

#include "moefy/core/error.hpp"
#include "moefy/router/router_fitter.hpp"

namespace moefy {

namespace {

constexpr std::size_t kRows = 256;
constexpr double kLeastInputNorm = 1e-12;

Matrix<double> zeros(std::size_t rows, std::size_t cols) {
  Matrix<double> matrix(rows, cols);
  std::ranges::fill(matrix.values(), 0.0);
  return matrix;
}

/// output · tanh(weight · x / ‖x‖).
void two_layer_scores(const RouterWeights& router, MatrixView<const float> inputs,
                      MatrixView<float> out, ThreadPool& threads) {
  Matrix<float> inner(inputs.rows, router.weight.rows());
  multiply_transposed(inputs, router.weight.view(), inner.view(), threads);
  const std::vector<double> squares = squared_row_norms(inputs, threads);
  for (std::size_t t = 0; t < inner.rows(); ++t) {
    const auto scale = static_cast<float>(1 / std::max(std::sqrt(squares[t]), kLeastInputNorm));
    for (float& value : inner.row(t)) value = std::tanh(scale * value);
  }
  multiply_transposed(std::as_const(inner).view(), router.output.view(), out, threads);
}

Matrix<double> gram_of_inputs(CalibrationTokens& tokens) {
  const std::size_t width = tokens.layer().hidden_size();
  Matrix<double> gram = zeros(width, width);
  tokens.for_each_block([&](const CalibrationTokens::Block& block) {
    add_block_gram(block.inputs, gram, tokens.threads());
  });
  return gram;
}

/// The target of each expert on each token.
class TargetScores {
 public:
  TargetScores(CalibrationTokens& tokens, const ExpertMembers& members, RidgeTarget what)
      : what_(what), threads_(tokens.threads()), members_(members) {
    if (what != RidgeTarget::score) norms_.emplace(tokens.layer(), members, threads_);
  }

  void compute(MatrixView<const float> hidden, MatrixView<float> out) const {
    if (what_ == RidgeTarget::score) return oracle_scores(hidden, members_, out, threads_);
    norms_->compute(hidden, out, threads_);
    if (what_ == RidgeTarget::output) return;
    for (float& value : out.values()) value = std::log(std::max(value, kLeastNorm));
  }

 private:
  static constexpr float kLeastNorm = 1e-6F;
  RidgeTarget what_;
  ThreadPool& threads_;
  const ExpertMembers& members_;
  std::optional<ExpertNorms> norms_;
};

/// 1 - ‖x / ‖x‖ - c_e‖² = 2 c_e · x / ‖x‖ - ‖c_e‖²; for x = 0 as if x / ‖x‖ were 0.
void nearness_scores(const RouterWeights& router, MatrixView<const float> inputs,
                     MatrixView<float> out, ThreadPool& threads) {
  multiply_transposed(inputs, router.weight.view(), out, threads);
  const std::vector<double> lengths = squared_row_norms(router.weight.view(), threads);
  const std::vector<double> squares = squared_row_norms(inputs, threads);
  for (std::size_t t = 0; t < out.rows; ++t) {
    const float factor = squares[t] == 0 ? 0.0F : static_cast<float>(2 / std::sqrt(squares[t]));
    for (std::size_t e = 0; e < out.cols; ++e)
      out.row(t)[e] = factor * out.row(t)[e] - static_cast<float>(lengths[e]);
  }
}

}  // namespace

RidgeRouter::RidgeRouter(CalibrationTokens& tokens, double ridge)
    : factor_(ridge_factor(gram_of_inputs(tokens), ridge)) {}

RouterWeights RidgeRouter::fit(CalibrationTokens& tokens,
                               const std::vector<std::vector<std::int32_t>>& members,
                               RidgeTarget what) const {
  const std::size_t width = tokens.layer().hidden_size();
  const std::size_t experts = members.size();
  const TargetScores scores(tokens, members, what);
  Matrix<double> rhs = zeros(width, experts);
  Matrix<float> target;
  tokens.for_each_block([&](const CalibrationTokens::Block& block) {
    target.resize(block.hidden.rows, experts);
    scores.compute(block.hidden, target.view());
    add_block_product(block.inputs, target.view(), rhs, tokens.threads());
  });
  factor_.solve(rhs);

  RouterWeights router;
  router.kind = "ridge";
  router.weight.resize(experts, width);
  for (std::size_t e = 0; e < experts; ++e)
    for (std::size_t j = 0; j < width; ++j)
      router.weight.row(e)[j] = static_cast<float>(rhs.row(j)[e]);
  return router;
}

void router_scores(const RouterWeights& router, MatrixView<const float> inputs,
                   MatrixView<float> out, ThreadPool& threads) {
  if (router.output.rows() > 0) return two_layer_scores(router, inputs, out, threads);
  if (router.kind == kEuclideanCentroid) return nearness_scores(router, inputs, out, threads);
  multiply_transposed(inputs, router.weight.view(), out, threads);
  if (router.bias.empty()) return;
  for (std::size_t t = 0; t < out.rows; ++t)
    for (std::size_t e = 0; e < out.cols; ++e) out.row(t)[e] += router.bias[e];
}

void choose_experts(MatrixView<const float> scores, std::size_t top_k, MatrixView<float> chosen,
                    ThreadPool& threads) {
  require(top_k <= scores.cols && chosen.rows == scores.rows && chosen.cols == scores.cols,
          "at most as many chosen experts as there are");
  threads.for_each((scores.rows + kRows - 1) / kRows, [&](std::size_t tile) {
    std::vector<std::size_t> order(scores.cols);
    for (std::size_t t = tile * kRows; t < std::min(scores.rows, tile * kRows + kRows); ++t) {
      const std::span<const float> score = scores.row(t);
      std::iota(order.begin(), order.end(), std::size_t{0});
      std::ranges::partial_sort(order, order.begin() + static_cast<std::ptrdiff_t>(top_k),
                                [&](std::size_t a, std::size_t b) {
                                  return score[a] != score[b] ? score[a] > score[b] : a < b;
                                });
      std::ranges::fill(chosen.row(t), 0.0F);
      for (std::size_t k = 0; k < top_k; ++k) chosen.row(t)[order[k]] = 1.0F;
    }
  });
}

namespace {

/// `route --router ridge`.
class RidgeFitter : public RouterFitter {
 public:
  std::string name() const override { return "ridge"; }
  bool needs_recordings() const override { return true; }
  std::vector<std::string> targets() const override { return {"output", "log-output", "score"}; }

  RouterWeights fit(const RouterTask& task) const override {
    const RidgeRouter ridge(*task.tokens, task.config.ridge);
    const std::string& target = task.config.target;
    return ridge.fit(*task.tokens, members_of(task.lists),
                     target == "score"        ? RidgeTarget::score
                     : target == "log-output" ? RidgeTarget::log_output
                                              : RidgeTarget::output);
  }
};

}  // namespace

std::unique_ptr<RouterFitter> make_ridge_fitter() { return std::make_unique<RidgeFitter>(); }

double logit_spread(const RouterWeights& router, CalibrationTokens& tokens) {
  Matrix<float> scores;
  double sum = 0;
  tokens.for_each_block([&](const CalibrationTokens::Block& block) {
    scores.resize(block.inputs.rows, router.weight.rows());
    router_scores(router, block.inputs, scores.view(), tokens.threads());
    for (const double squares : squared_row_norms(scores.view(), tokens.threads())) sum += squares;
  });
  const auto count = static_cast<double>(tokens.num_tokens() * router.weight.rows());
  return count > 0 ? std::sqrt(sum / count) : 0;
}

}  // namespace moefy
