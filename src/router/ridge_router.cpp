#include "moefy/router/ridge_router.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <string_view>
#include <utility>

#include "moefy/core/error.hpp"
#include "moefy/router/router_fitter.hpp"

namespace moefy {

namespace {

constexpr double kLeastInputNorm = 1e-12;

void add_columns(MatrixView<const float> rows, std::vector<double>& sum) {
  for (std::size_t t = 0; t < rows.rows; ++t)
    for (std::size_t j = 0; j < rows.cols; ++j) sum[j] += static_cast<double>(rows.row(t)[j]);
}

double count_of(const CalibrationTokens& tokens) {
  return static_cast<double>(std::max<std::size_t>(tokens.num_tokens(), 1));
}

/// The Gram matrix of the inputs; with `mean`, which is set, of what they are less their mean.
std::unique_ptr<GramSum> gram_of_inputs(CalibrationTokens& tokens, std::vector<double>* mean) {
  const std::size_t width = tokens.layer().hidden_size();
  std::unique_ptr<GramSum> gram = tokens.algebra().make_gram_sum(width);
  if (mean) mean->assign(width, 0.0);
  tokens.for_each_inputs([&](const CalibrationTokens::Inputs& block) {
    gram->add(block.inputs);
    if (mean) add_columns(block.inputs.on_host(), *mean);
  });
  if (!mean) return gram;
  const double count = count_of(tokens);
  for (double& value : *mean) value /= count;
  gram->subtract_outer(count, *mean);
  return gram;
}

/// The target of each expert on each token.
class TargetScores {
 public:
  TargetScores(CalibrationTokens& tokens, const ExpertMembers& members, RidgeTarget what,
               std::size_t top_k)
      : what_(what),
        top_k_(top_k),
        algebra_(tokens.algebra()),
        lists_(algebra_.make_lists(members, {})),
        values_(algebra_.make_matrix()) {
    if (what != RidgeTarget::score)
      norms_ = algebra_.make_expert_norms(tokens.ffn().down(), *lists_);
    if (what == RidgeTarget::standardized) measure(tokens);
  }

  void compute(const BackendMatrix& hidden, BackendMatrix& out) const {
    if (what_ == RidgeTarget::score)
      return algebra_.expert_scores(hidden, *lists_, kOracleScore, out);
    if (what_ == RidgeTarget::topk) {
      norms_->compute(hidden, *values_);
      return algebra_.mark_largest(*values_, top_k_, false, out);
    }
    norms_->compute(hidden, out);
    if (what_ == RidgeTarget::output) return;
    out.edit([&](MatrixView<float> norms) {
      for (std::size_t t = 0; t < norms.rows; ++t) transform(norms.row(t));
    });
  }

 private:
  static constexpr float kLeastNorm = 1e-6F;

  /// Mean and deviation of each expert's norm, in two passes.
  void measure(CalibrationTokens& tokens) {
    const double count = count_of(tokens);
    mean_.assign(lists_->experts().size(), 0.0);
    deviation_.assign(lists_->experts().size(), 0.0);
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
    tokens.for_each_block([&](const CalibrationTokens::Block& block) {
      norms_->compute(block.hidden, *values_);
      const MatrixView<const float> norms = std::as_const(*values_).on_host();
      std::vector<double> block_sums(sums.size(), 0.0);
      for (std::size_t t = 0; t < norms.rows; ++t)
        for (std::size_t e = 0; e < sums.size(); ++e)
          block_sums[e] += term(static_cast<double>(norms.row(t)[e]), e);
      for (std::size_t e = 0; e < sums.size(); ++e) sums[e] += block_sums[e];
    });
  }

  /// What becomes of a token's norms.
  void transform(std::span<float> norms) const {
    if (what_ == RidgeTarget::standardized) return standardize(norms);
    for (float& value : norms)
      value = what_ == RidgeTarget::energy ? value * value : std::log(std::max(value, kLeastNorm));
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
  LinearAlgebra& algebra_;
  std::unique_ptr<ExpertLists> lists_;
  std::unique_ptr<ExpertNorms> norms_;     ///< null for score
  std::unique_ptr<BackendMatrix> values_;  ///< norms on the way to something else
  std::vector<double> mean_, deviation_;   ///< by expert, for standardized alone
};

}  // namespace

RidgeRouter::RidgeRouter(CalibrationTokens& tokens, double ridge, bool intercept)
    : factor_(ridge_factor(*gram_of_inputs(tokens, intercept ? &mean_input_ : nullptr), ridge)) {}

RouterWeights RidgeRouter::fit(CalibrationTokens& tokens,
                               const std::vector<std::vector<std::int32_t>>& members,
                               RidgeTarget what, std::size_t top_k) const {
  require(what != RidgeTarget::topk || (top_k >= 1 && top_k <= members.size()),
          "a number of experts for the target topk");
  const std::size_t width = tokens.layer().hidden_size();
  const std::size_t experts = members.size();
  const TargetScores scores(tokens, members, what, top_k);
  const std::unique_ptr<ProductSum> rhs = tokens.algebra().make_product_sum(width, experts);
  std::vector<double> mean_target(experts, 0.0);
  const std::unique_ptr<BackendMatrix> target = tokens.algebra().make_matrix();
  tokens.for_each_block([&](const CalibrationTokens::Block& block) {
    scores.compute(block.hidden, *target);
    rhs->add(block.inputs, *target);
    if (!mean_input_.empty()) add_columns(target->on_host(), mean_target);
  });
  for (double& value : mean_target) value /= count_of(tokens);
  if (!mean_input_.empty()) rhs->subtract_outer(count_of(tokens), mean_input_, mean_target);
  factor_->solve(*rhs);
  const Matrix<double> solution = rhs->take();

  RouterWeights router;
  router.kind = "ridge";
  router.weight.resize(experts, width);
  for (std::size_t e = 0; e < experts; ++e)
    for (std::size_t j = 0; j < width; ++j)
      router.weight.row(e)[j] = static_cast<float>(solution.row(j)[e]);
  if (mean_input_.empty()) return router;
  for (std::size_t j = 0; j < width; ++j)
    for (std::size_t e = 0; e < experts; ++e) mean_target[e] -= solution.row(j)[e] * mean_input_[j];
  router.bias.assign(mean_target.begin(), mean_target.end());
  return router;
}

RouterOnBackend::RouterOnBackend(const RouterWeights& router, LinearAlgebra& algebra)
    : router_(router),
      algebra_(algebra),
      weight_(algebra.make_matrix()),
      scratch_(algebra.make_matrix()) {
  weight_->assign(router.weight.view());
  if (router.output.rows() == 0) return;
  output_ = algebra.make_matrix();
  output_->assign(router.output.view());
}

void RouterOnBackend::scores(const BackendMatrix& inputs, BackendMatrix& out) const {
  scores_without_bias(inputs, out);
  if (router_.bias.empty()) return;
  out.edit([&](MatrixView<float> values) {
    for (std::size_t t = 0; t < values.rows; ++t)
      for (std::size_t e = 0; e < values.cols; ++e) values.row(t)[e] += router_.bias[e];
  });
}

void RouterOnBackend::scores_without_bias(const BackendMatrix& inputs, BackendMatrix& out) const {
  if (output_) return two_layer_scores(inputs, out);
  if (router_.kind == kEuclideanCentroid) return nearness_scores(inputs, out);
  algebra_.multiply_transposed(inputs, *weight_, out);
}

void RouterOnBackend::choose(const BackendMatrix& inputs, std::size_t top_k,
                             BackendMatrix& chosen) const {
  scores(inputs, *scratch_);
  algebra_.mark_largest(*scratch_, top_k, false, chosen);
}

void RouterOnBackend::two_layer_scores(const BackendMatrix& inputs, BackendMatrix& out) const {
  const std::unique_ptr<BackendMatrix> inner = algebra_.make_matrix();
  algebra_.multiply_transposed(inputs, *weight_, *inner);
  const std::vector<double> squares = algebra_.squared_row_norms(inputs);
  inner->edit([&](MatrixView<float> values) {
    for (std::size_t t = 0; t < values.rows; ++t) {
      const auto scale = static_cast<float>(1 / std::max(std::sqrt(squares[t]), kLeastInputNorm));
      for (float& value : values.row(t)) value = std::tanh(scale * value);
    }
  });
  algebra_.multiply_transposed(*inner, *output_, out);
}

/// 2 c_e · x / ‖x‖ - ‖c_e‖² for the centroids c_e; for x = 0 as if x / ‖x‖ were 0.
void RouterOnBackend::nearness_scores(const BackendMatrix& inputs, BackendMatrix& out) const {
  algebra_.multiply_transposed(inputs, *weight_, out);
  const std::vector<double> lengths = algebra_.squared_row_norms(*weight_);
  const std::vector<double> squares = algebra_.squared_row_norms(inputs);
  out.edit([&](MatrixView<float> values) {
    for (std::size_t t = 0; t < values.rows; ++t) {
      const float factor = squares[t] == 0 ? 0.0F : static_cast<float>(2 / std::sqrt(squares[t]));
      for (std::size_t e = 0; e < values.cols; ++e)
        values.row(t)[e] = factor * values.row(t)[e] - static_cast<float>(lengths[e]);
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
  const RouterOnBackend on_backend(router, tokens.algebra());
  const std::unique_ptr<BackendMatrix> scores = tokens.algebra().make_matrix();
  double sum = 0;
  tokens.for_each_inputs([&](const CalibrationTokens::Inputs& block) {
    on_backend.scores_without_bias(block.inputs, *scores);
    for (const double squares : tokens.algebra().squared_row_norms(*scores)) sum += squares;
  });
  const auto count = static_cast<double>(tokens.num_tokens() * router.weight.rows());
  return count > 0 ? std::sqrt(sum / count) : 0;
}

}  // namespace moefy
