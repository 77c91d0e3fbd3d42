#include "coactivation.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "moefy/backend/linear_algebra.hpp"

namespace moefy {

namespace {

constexpr std::size_t kRows = 256;
constexpr double kClampQuanta = 1 << 20;

/// The columns `neurons` of `from`, each value passed through `value`.
template <class Value>
void take_columns(MatrixView<const float> from, std::span<const std::int32_t> neurons,
                  Matrix<float>& out, ThreadPool& threads, const Value& value) {
  out.resize(from.rows, neurons.size());
  threads.for_each((from.rows + kRows - 1) / kRows, [&](std::size_t tile) {
    for (std::size_t t = tile * kRows; t < std::min(from.rows, (tile + 1) * kRows); ++t)
      for (std::size_t i = 0; i < neurons.size(); ++i)
        out.row(t)[i] = value(from.row(t)[static_cast<std::size_t>(neurons[i])]);
  });
}

void mirror_lower(Matrix<double>& matrix) {
  for (std::size_t i = 0; i < matrix.rows(); ++i)
    for (std::size_t j = 0; j < i; ++j) matrix.row(j)[i] = matrix.row(i)[j];
}

/// Adds min(1, |h|ᵀ|h|) of blocks of tokens that may span the blocks they come in.
class ClampedSum {
 public:
  ClampedSum(std::size_t neurons, std::int64_t block, Matrix<double>& sum, ThreadPool& threads)
      : block_(static_cast<std::size_t>(block)), sum_(sum), threads_(threads) {
    open_.resize(neurons, neurons);
    std::ranges::fill(open_.values(), 0.0);
  }

  void add(MatrixView<const float> magnitudes) {
    for (std::size_t t = 0; t < magnitudes.rows;) {
      const std::size_t left = block_ == 0 ? magnitudes.rows : block_ - filled_;
      const std::size_t count = std::min(left, magnitudes.rows - t);
      add_block_gram({magnitudes.data + t * magnitudes.cols, count, magnitudes.cols}, open_,
                     threads_);
      filled_ += count;
      t += count;
      if (filled_ == block_) close();
    }
  }

  /// The block that has begun ends here.
  void close() {
    if (filled_ == 0) return;
    filled_ = 0;
    threads_.for_each((open_.rows() + kRows - 1) / kRows, [&](std::size_t tile) {
      for (std::size_t i = tile * kRows; i < std::min(open_.rows(), (tile + 1) * kRows); ++i) {
        for (std::size_t j = 0; j <= i; ++j)
          sum_.row(i)[j] += std::round(std::min(1.0, open_.row(i)[j]) * kClampQuanta);
        std::ranges::fill(open_.row(i), 0.0);
      }
    });
  }

 private:
  std::size_t block_;
  std::size_t filled_ = 0;
  Matrix<double> open_;
  Matrix<double>& sum_;
  ThreadPool& threads_;
};

}  // namespace

void mark_active(MatrixView<const float> hidden, double fraction, bool relu,
                 MatrixView<float> marks, ThreadPool& threads) {
  const auto wanted = static_cast<std::size_t>(
      std::max<std::int64_t>(1, std::llround(fraction * static_cast<double>(hidden.cols))));
  threads.for_each((hidden.rows + kRows - 1) / kRows, [&](std::size_t tile) {
    std::vector<std::uint32_t> order(hidden.cols);
    for (std::size_t t = tile * kRows; t < std::min(hidden.rows, (tile + 1) * kRows); ++t) {
      const std::span<const float> row = hidden.row(t);
      const std::span<float> out = marks.row(t);
      if (relu) {
        for (std::size_t i = 0; i < row.size(); ++i) out[i] = row[i] > 0 ? 1.0F : 0.0F;
        continue;
      }
      std::iota(order.begin(), order.end(), 0U);
      std::ranges::nth_element(order, order.begin() + static_cast<std::ptrdiff_t>(wanted - 1),
                               [&](std::uint32_t a, std::uint32_t b) {
                                 const float left = std::abs(row[a]);
                                 const float right = std::abs(row[b]);
                                 return left != right ? left > right : a < b;
                               });
      std::ranges::fill(out, 0.0F);
      for (std::size_t i = 0; i < wanted; ++i) out[order[i]] = 1.0F;
    }
  });
}

Matrix<double> count_coactivation(CalibrationTokens& tokens, const SplitConfig& config,
                                  std::span<const std::int32_t> neurons) {
  Matrix<double> sum(neurons.size(), neurons.size());
  std::ranges::fill(sum.values(), 0.0);
  ThreadPool& threads = tokens.threads();
  const bool clamped = config.coactivation == "clamped";
  const bool product = config.coactivation == "product";
  // A gated layer's product has both signs, whatever the activation of its gate.
  const FfnLayer& layer = tokens.layer();
  const bool relu = layer.gate.rows() == 0 && layer.info.activation.starts_with("relu");
  ClampedSum clamped_sum(clamped ? neurons.size() : 0, config.coact_block, sum, threads);
  Matrix<float> part, marks;
  tokens.for_each_block([&](const CalibrationTokens::Block& block) {
    if (clamped) {
      take_columns(block.hidden, neurons, part, threads, [](float h) { return std::abs(h); });
      return clamped_sum.add(part.view());
    }
    if (product) {
      take_columns(block.hidden, neurons, part, threads, [](float h) { return std::max(h, 0.0F); });
    } else {
      marks.resize(block.hidden.rows, block.hidden.cols);
      mark_active(block.hidden, config.active_fraction, relu, marks.view(), threads);
      take_columns(std::as_const(marks).view(), neurons, part, threads, [](float m) { return m; });
    }
    add_block_gram(part.view(), sum, threads);
  });
  if (clamped) {
    clamped_sum.close();
    for (double& value : sum.values()) value /= kClampQuanta;
  }
  mirror_lower(sum);
  return sum;
}

}  // namespace moefy
