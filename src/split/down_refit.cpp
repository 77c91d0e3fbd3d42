#include "moefy/split/down_refit.hpp"

#include <algorithm>
#include <cmath>

#include "moefy/backend/linear_algebra.hpp"
#include "moefy/core/dtype.hpp"
#include "moefy/router/ridge_router.hpp"
#include "moefy/split/routed_split.hpp"

namespace moefy {

namespace {

constexpr std::size_t kRows = 256;

Matrix<double> zeros(std::size_t rows, std::size_t cols) {
  Matrix<double> matrix(rows, cols);
  std::ranges::fill(matrix.values(), 0.0);
  return matrix;
}

double sum_of(std::span<const double> values) {
  double sum = 0;
  for (const double value : values) sum += value;
  return sum;
}

/// What stays on and what is missing, block by block, each row times the root of its token's
/// weight.
class RoutedBlocks {
 public:
  RoutedBlocks(CalibrationTokens& tokens, std::span<const float> token_weight,
               const RouterWeights& router, std::span<const std::int32_t> label, std::int64_t top_k)
      : tokens_(tokens),
        token_weight_(token_weight),
        router_(router),
        label_(label),
        top_k_(static_cast<std::size_t>(top_k)) {}

  /// Calls body(kept [T, n], missing output [T, d]); adds up Σ w‖missing output‖².
  template <class Body>
  void for_each(const Body& body) {
    const FfnLayer& layer = tokens_.layer();
    ThreadPool& threads = tokens_.threads();
    tokens_.for_each_block([&](const CalibrationTokens::Block& block) {
      const std::size_t count = block.hidden.rows;
      scores_.resize(count, router_.weight.rows());
      chosen_.resize(count, router_.weight.rows());
      router_scores(router_, block.inputs, scores_.view(), threads);
      choose_experts(scores_.view(), top_k_, chosen_.view(), threads);
      kept_.resize(count, layer.num_neurons());
      missing_.resize(count, layer.num_neurons());
      part(block);
      output_.resize(count, layer.hidden_size());
      multiply(missing_.view(), layer.down.view(), output_.view(), threads);
      missing_square += sum_of(squared_row_norms(output_.view(), threads));
      body(kept_.view(), output_.view());
    });
  }

  double missing_square = 0;

 private:
  /// √w · hidden, in kept_ where a neuron is on, else in missing_; 0 in the other.
  void part(const CalibrationTokens::Block& block) {
    tokens_.threads().for_each((kept_.rows() + kRows - 1) / kRows, [&](std::size_t tile) {
      NeuronMask mask(label_);
      for (std::size_t t = tile * kRows; t < std::min(kept_.rows(), tile * kRows + kRows); ++t) {
        const float root = std::sqrt(token_weight_[block.first + t]);
        const std::span<const float> hidden = block.hidden.row(t);
        const std::span<const float> on = mask.of(chosen_.row(t));
        const std::span<float> kept = kept_.row(t);
        const std::span<float> missing = missing_.row(t);
        for (std::size_t i = 0; i < hidden.size(); ++i) {
          const float value = root * hidden[i];
          kept[i] = on[i] != 0 ? value : 0.0F;
          missing[i] = on[i] != 0 ? 0.0F : value;
        }
      }
    });
  }

  CalibrationTokens& tokens_;
  std::span<const float> token_weight_;
  const RouterWeights& router_;
  std::span<const std::int32_t> label_;
  std::size_t top_k_;
  Matrix<float> scores_, chosen_, kept_, missing_, output_;
};

void round_to(DType dtype, Matrix<float>& values) {
  std::vector<std::byte> raw(values.cols() * size_of(dtype));
  for (std::size_t i = 0; i < values.rows(); ++i) {
    narrow(dtype, values.row(i), raw);
    widen(dtype, raw, values.row(i));
  }
}

double relative(double error, double whole) { return whole > 0 ? std::max(0.0, error) / whole : 0; }

}  // namespace

DownRefit refit_down(CalibrationTokens& tokens, std::span<const float> token_weight,
                     double dense_square, const RouterWeights& router,
                     std::span<const std::int32_t> label, std::int64_t top_k, double lambda) {
  const FfnLayer& layer = tokens.layer();
  Matrix<double> gram = zeros(layer.num_neurons(), layer.num_neurons());
  Matrix<double> change = zeros(layer.num_neurons(), layer.hidden_size());
  RoutedBlocks blocks(tokens, token_weight, router, label, top_k);
  blocks.for_each([&](MatrixView<const float> kept, MatrixView<const float> missing) {
    add_block_gram(kept, gram, tokens.threads());
    add_block_product(kept, missing, change, tokens.threads());
  });

  double diagonal = 0;
  for (std::size_t i = 0; i < gram.rows(); ++i) diagonal += gram.row(i)[i];
  diagonal /= static_cast<double>(gram.rows());
  DownRefit refit;
  refit.down.resize(layer.num_neurons(), layer.hidden_size());
  std::ranges::copy(layer.down.values(), refit.down.values().begin());
  refit.error_before = relative(blocks.missing_square, dense_square);
  refit.error_after = refit.error_before;
  if (diagonal > 0) {
    double used = lambda;
    const CholeskyFactor factor = ridge_factor(gram, lambda, &used);
    Matrix<double> right(change.rows(), change.cols());
    std::ranges::copy(change.values(), right.values().begin());
    factor.solve(change);
    // With (G + r I) Δ = C the error is ‖missing‖² - ⟨Δ, C⟩ - r ‖Δ‖².
    double explained = 0;
    double squares = 0;
    for (std::size_t i = 0; i < change.values().size(); ++i) {
      explained += change.values()[i] * right.values()[i];
      squares += change.values()[i] * change.values()[i];
      refit.down.values()[i] += static_cast<float>(change.values()[i]);
    }
    refit.error_after =
        relative(blocks.missing_square - explained - used * diagonal * squares, dense_square);
  }
  round_to(layer.info.find(FfnRole::down)->dtype, refit.down);
  return refit;
}

double routed_error(CalibrationTokens& tokens, std::span<const float> token_weight,
                    double dense_square, const RouterWeights& router,
                    std::span<const std::int32_t> label, std::int64_t top_k) {
  RoutedBlocks blocks(tokens, token_weight, router, label, top_k);
  blocks.for_each([](MatrixView<const float>, MatrixView<const float>) {});
  return relative(blocks.missing_square, dense_square);
}

}  // namespace moefy
