#include "moefy/router/ridge_router.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "moefy/core/error.hpp"

namespace moefy {

namespace {

constexpr std::size_t kRows = 256;

Matrix<double> zeros(std::size_t rows, std::size_t cols) {
  Matrix<double> matrix(rows, cols);
  std::ranges::fill(matrix.values(), 0.0);
  return matrix;
}

Matrix<double> gram_of_inputs(CalibrationTokens& tokens) {
  const std::size_t width = tokens.layer().hidden_size();
  Matrix<double> gram = zeros(width, width);
  tokens.for_each_block([&](const CalibrationTokens::Block& block) {
    add_block_gram(block.inputs, gram, tokens.threads());
  });
  return gram;
}

}  // namespace

RidgeRouter::RidgeRouter(CalibrationTokens& tokens, double ridge)
    : factor_(ridge_factor(gram_of_inputs(tokens), ridge)) {}

RouterWeights RidgeRouter::fit(CalibrationTokens& tokens,
                               const std::vector<std::vector<std::int32_t>>& members) const {
  const std::size_t width = tokens.layer().hidden_size();
  const std::size_t experts = members.size();
  const ExpertNorms norms(tokens.layer(), members, tokens.threads());
  Matrix<double> rhs = zeros(width, experts);
  Matrix<float> target;
  tokens.for_each_block([&](const CalibrationTokens::Block& block) {
    target.resize(block.hidden.rows, experts);
    norms.compute(block.hidden, target.view(), tokens.threads());
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
