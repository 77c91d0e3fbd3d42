#include "coactivation.hpp"

#include <algorithm>
#include <cmath>
#include <memory>

namespace moefy {

namespace {

constexpr double kClampQuanta = 1 << 20;

void mirror_lower(Matrix<double>& matrix) {
  for (std::size_t i = 0; i < matrix.rows(); ++i)
    for (std::size_t j = 0; j < i; ++j) matrix.row(j)[i] = matrix.row(i)[j];
}

/// Adds min(1, |h|ᵀ|h|) of blocks of tokens that may span the blocks they come in.
class ClampedSum {
 public:
  ClampedSum(std::size_t neurons, std::int64_t block, LinearAlgebra& algebra)
      : block_(static_cast<std::size_t>(block)),
        open_(algebra.make_gram_sum(neurons)),
        sum_(algebra.make_gram_sum(neurons)) {}

  void add(const BackendMatrix& magnitudes) {
    for (std::size_t t = 0; t < magnitudes.rows();) {
      const std::size_t left = block_ == 0 ? magnitudes.rows() : block_ - filled_;
      const std::size_t count = std::min(left, magnitudes.rows() - t);
      open_->add(magnitudes, t, count);
      filled_ += count;
      t += count;
      if (filled_ == block_) close();
    }
  }

  /// The block that has begun ends here; the lower triangle of the sum.
  Matrix<double> take() {
    close();
    Matrix<double> sum = sum_->take();
    for (double& value : sum.values()) value /= kClampQuanta;
    return sum;
  }

 private:
  void close() {
    if (filled_ == 0) return;
    filled_ = 0;
    sum_->add_clamped(*open_, kClampQuanta);
  }

  std::size_t block_;
  std::size_t filled_ = 0;
  std::unique_ptr<GramSum> open_, sum_;
};

Matrix<double> clamped_sum(CalibrationTokens& tokens, std::int64_t block_tokens,
                           std::span<const std::int32_t> neurons) {
  ClampedSum sum(neurons.size(), block_tokens, tokens.algebra());
  const std::unique_ptr<BackendMatrix> part = tokens.algebra().make_matrix();
  tokens.for_each_block([&](const CalibrationTokens::Block& block) {
    tokens.algebra().gather_columns(block.hidden, neurons, ValueMap::magnitude, *part);
    sum.add(*part);
  });
  return sum.take();
}

/// Σ over tokens of the products of what `prepare` makes of the hidden activations.
template <class Prepare>
Matrix<double> product_sum(CalibrationTokens& tokens, std::span<const std::int32_t> neurons,
                           const Prepare& prepare) {
  const std::unique_ptr<GramSum> sum = tokens.algebra().make_gram_sum(neurons.size());
  const std::unique_ptr<BackendMatrix> part = tokens.algebra().make_matrix();
  tokens.for_each_block([&](const CalibrationTokens::Block& block) {
    prepare(block.hidden, *part);
    sum->add(*part);
  });
  return sum->take();
}

Matrix<double> lower_triangle(CalibrationTokens& tokens, const SplitConfig& config,
                              std::span<const std::int32_t> neurons) {
  LinearAlgebra& algebra = tokens.algebra();
  const auto gathered = [&](ValueMap map) {
    return product_sum(tokens, neurons, [&](const BackendMatrix& hidden, BackendMatrix& part) {
      algebra.gather_columns(hidden, neurons, map, part);
    });
  };
  if (config.coactivation == "clamped") return clamped_sum(tokens, config.coact_block, neurons);
  if (config.coactivation == "product") return gathered(ValueMap::positive);
  // A gated layer's product has both signs, whatever the activation of its gate.
  const FfnLayer& layer = tokens.layer();
  if (layer.gate.rows() == 0 && layer.info.activation.starts_with("relu"))
    return gathered(ValueMap::is_positive);
  const std::size_t marked = marked_neurons(config.active_fraction, layer.num_neurons());
  const std::unique_ptr<BackendMatrix> marks = algebra.make_matrix();
  return product_sum(tokens, neurons, [&](const BackendMatrix& hidden, BackendMatrix& part) {
    algebra.mark_largest(hidden, marked, true, *marks);
    algebra.gather_columns(*marks, neurons, ValueMap::same, part);
  });
}

}  // namespace

std::size_t marked_neurons(double fraction, std::size_t num_neurons) {
  return static_cast<std::size_t>(
      std::max<std::int64_t>(1, std::llround(fraction * static_cast<double>(num_neurons))));
}

Matrix<double> count_coactivation(CalibrationTokens& tokens, const SplitConfig& config,
                                  std::span<const std::int32_t> neurons) {
  Matrix<double> sum = lower_triangle(tokens, config, neurons);
  mirror_lower(sum);
  return sum;
}

}  // namespace moefy
