#include "moefy/router/ridge_router.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <optional>
#include <string_view>
#include <utility>

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

void add_columns(MatrixView<const float> rows, std::vector<double>& sum) {
  for (std::size_t t = 0; t < rows.rows; ++t)
    for (std::size_t j = 0; j < rows.cols; ++j) sum[j] += static_cast<double>(rows.row(t)[j]);
}

double count_of(const CalibrationTokens& tokens) {
  return static_cast<double>(std::max<std::size_t>(tokens.num_tokens(), 1));
}

/// Lower triangle of the Gram matrix of the inputs; with `mean`, which is set, of what they are
/// less their mean.
Matrix<double> gram_of_inputs(CalibrationTokens& tokens, std::vector<double>* mean) {
  const std::size_t width = tokens.layer().hidden_size();
  Matrix<double> gram = zeros(width, width);
  if (mean) mean->assign(width, 0.0);
  tokens.for_each_block([&](const CalibrationTokens::Block& block) {
    add_block_gram(block.inputs, gram, tokens.threads());
    if (mean) add_columns(block.inputs, *mean);
  });
  if (!mean) return gram;
  const double count = count_of(tokens);
  for (double& value : *mean) value /= count;
  for (std::size_t i = 0; i < width; ++i)
    for (std::size_t j = 0; j <= i; ++j) gram.row(i)[j] -= count * (*mean)[i] * (*mean)[j];
  return gram;
}

/// The target of each expert on each token.
class TargetScores {
 public:
  TargetScores(CalibrationTokens& tokens, const ExpertMembers& members, RidgeTarget what,
               std::size_t top_k)
      : what_(what), top_k_(top_k), threads_(tokens.threads()), members_(members) {
    if (what != RidgeTarget::score) norms_.emplace(tokens.layer(), members, threads_);
    if (what == RidgeTarget::standardized) measure(tokens);
  }

  void compute(MatrixView<const float> hidden, MatrixView<float> out) const {
    if (what_ == RidgeTarget::score) return oracle_scores(hidden, members_, out, threads_);
    norms_->compute(hidden, out, threads_);
    switch (what_) {
      case RidgeTarget::log_output:
        for (float& value : out.values()) value = std::log(std::max(value, kLeastNorm));
        break;
      case RidgeTarget::energy:
        for (float& value : out.values()) value *= value;
        break;
      case RidgeTarget::topk: {
        Matrix<float> norms(out.rows, out.cols);
        std::ranges::copy(out.values(), norms.values().begin());
        choose_experts(std::as_const(norms).view(), top_k_, out, threads_);
        break;
      }
      case RidgeTarget::standardized:
        for (std::size_t t = 0; t < out.rows; ++t) standardize(out.row(t));
        break;
      case RidgeTarget::output:
      case RidgeTarget::score:
        break;
    }
  }

 private:
  static constexpr float kLeastNorm = 1e-6F;

  /// Mean and deviation of each expert's norm, in two passes.
  void measure(CalibrationTokens& tokens) {
    const double count = count_of(tokens);
    mean_.assign(members_.size(), 0.0);
    deviation_.assign(members_.size(), 0.0);
    sum_over_tokens(tokens, mean_, [](double norm, std::size_t) { return norm; });
    for (double& value : mean_) value /= count;
    sum_over_tokens(tokens, deviation_, [&](double norm, std::size_t e) {
      return (norm - mean_[e]) * (norm - mean_[e]);
    });
    for (double& value : deviation_) value = std::sqrt(value / count);
  }

  /// Blocks are added in order.
  template <class Term>
  void sum_over_tokens(CalibrationTokens& tokens, std::vector<double>& sums, const Term& term) {
    Matrix<float> norms;
    tokens.for_each_block([&](const CalibrationTokens::Block& block) {
      norms.resize(block.hidden.rows, members_.size());
      norms_->compute(block.hidden, norms.view(), threads_);
      std::vector<double> block_sums(sums.size(), 0.0);
      for (std::size_t t = 0; t < norms.rows(); ++t)
        for (std::size_t e = 0; e < sums.size(); ++e)
          block_sums[e] += term(static_cast<double>(norms.row(t)[e]), e);
      for (std::size_t e = 0; e < sums.size(); ++e) sums[e] += block_sums[e];
    });
  }

  /// An expert whose norm never changes has nothing to tell: 0.
  void standardize(std::span<float> norms) const {
    for (std::size_t e = 0; e < norms.size(); ++e)
      norms[e] =
          deviation_[e] > 0
              ? static_cast<float>((static_cast<double>(norms[e]) - mean_[e]) / deviation_[e])
              : 0.0F;
  }

  RidgeTarget what_;
  std::size_t top_k_;
  ThreadPool& threads_;
  const ExpertMembers& members_;
  std::optional<ExpertNorms> norms_;
  std::vector<double> mean_, deviation_;  ///< by expert, for standardized alone
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

void scores_without_bias(const RouterWeights& router, MatrixView<const float> inputs,
                         MatrixView<float> out, ThreadPool& threads) {
  if (router.output.rows() > 0) return two_layer_scores(router, inputs, out, threads);
  if (router.kind == kEuclideanCentroid) return nearness_scores(router, inputs, out, threads);
  multiply_transposed(inputs, router.weight.view(), out, threads);
}

}  // namespace

RidgeRouter::RidgeRouter(CalibrationTokens& tokens, double ridge, bool intercept)
    : factor_(ridge_factor(gram_of_inputs(tokens, intercept ? &mean_input_ : nullptr), ridge)) {}

RouterWeights RidgeRouter::fit(CalibrationTokens& tokens,
                               const std::vector<std::vector<std::int32_t>>& members,
                               RidgeTarget what, std::size_t top_k) const {
  require(what != RidgeTarget::topk || (top_k >= 1 && top_k <= members.size()),
          "a number of experts for the target topk");
  const std::size_t width = tokens.layer().hidden_size();
  const std::size_t experts = members.size();
  const TargetScores scores(tokens, members, what, top_k);
  Matrix<double> rhs = zeros(width, experts);
  std::vector<double> mean_target(experts, 0.0);
  Matrix<float> target;
  tokens.for_each_block([&](const CalibrationTokens::Block& block) {
    target.resize(block.hidden.rows, experts);
    scores.compute(block.hidden, target.view());
    add_block_product(block.inputs, target.view(), rhs, tokens.threads());
    if (!mean_input_.empty()) add_columns(std::as_const(target).view(), mean_target);
  });
  for (double& value : mean_target) value /= count_of(tokens);
  for (std::size_t j = 0; j < mean_input_.size(); ++j)
    for (std::size_t e = 0; e < experts; ++e)
      rhs.row(j)[e] -= count_of(tokens) * mean_input_[j] * mean_target[e];
  factor_.solve(rhs);

  RouterWeights router;
  router.kind = "ridge";
  router.weight.resize(experts, width);
  for (std::size_t e = 0; e < experts; ++e)
    for (std::size_t j = 0; j < width; ++j)
      router.weight.row(e)[j] = static_cast<float>(rhs.row(j)[e]);
  if (mean_input_.empty()) return router;
  for (std::size_t j = 0; j < width; ++j)
    for (std::size_t e = 0; e < experts; ++e) mean_target[e] -= rhs.row(j)[e] * mean_input_[j];
  router.bias.assign(mean_target.begin(), mean_target.end());
  return router;
}

void router_scores(const RouterWeights& router, MatrixView<const float> inputs,
                   MatrixView<float> out, ThreadPool& threads) {
  scores_without_bias(router, inputs, out, threads);
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

/// Values of --target, the default first.
constexpr std::array<std::pair<std::string_view, RidgeTarget>, 6> kRidgeTargets = {{
    {"output", RidgeTarget::output},
    {"log-output", RidgeTarget::log_output},
    {"score", RidgeTarget::score},
    {"energy", RidgeTarget::energy},
    {"topk", RidgeTarget::topk},
    {"standardized", RidgeTarget::standardized},
}};

/// `route --router ridge`.
class RidgeFitter : public RouterFitter {
 public:
  std::string name() const override { return "ridge"; }
  bool needs_recordings() const override { return true; }
  std::vector<std::string> targets() const override {
    std::vector<std::string> names;
    for (const auto& [name, target] : kRidgeTargets) names.emplace_back(name);
    return names;
  }

  RouterWeights fit(const RouterTask& task) const override {
    RidgeTarget target = RidgeTarget::output;
    for (const auto& [name, value] : kRidgeTargets)
      if (name == task.config.target) target = value;
    if (target == RidgeTarget::topk && task.config.top_k < 1)
      throw UsageError("--target topk needs --top-k K, the experts a token is sent to");
    const RidgeRouter ridge(*task.tokens, task.config.ridge, task.config.selection_bias);
    return ridge.fit(*task.tokens, members_of(task.lists), target,
                     static_cast<std::size_t>(task.config.top_k));
  }
};

}  // namespace

std::unique_ptr<RouterFitter> make_ridge_fitter() { return std::make_unique<RidgeFitter>(); }

double logit_spread(const RouterWeights& router, CalibrationTokens& tokens) {
  Matrix<float> scores;
  double sum = 0;
  tokens.for_each_block([&](const CalibrationTokens::Block& block) {
    scores.resize(block.inputs.rows, router.weight.rows());
    scores_without_bias(router, block.inputs, scores.view(), tokens.threads());
    for (const double squares : squared_row_norms(scores.view(), tokens.threads())) sum += squares;
  });
  const auto count = static_cast<double>(tokens.num_tokens() * router.weight.rows());
  return count > 0 ? std::sqrt(sum / count) : 0;
}

}  // namespace moefy
