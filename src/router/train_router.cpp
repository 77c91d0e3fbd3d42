#include <algorithm>
#include <cmath>
#include <numeric>

#include "mlp_router.hpp"
#include "moefy/core/error.hpp"
#include "moefy/core/random.hpp"
#include "moefy/router/ridge_router.hpp"

namespace moefy {

namespace {

constexpr std::size_t kRunTokens = 512;  ///< neighbours, mostly of one sequence, stay together
constexpr double kLeastNorm = 1e-12;

/// out = matrixᵀ.
void transpose(MatrixView<const float> matrix, Matrix<float>& out) {
  out.resize(matrix.cols, matrix.rows);
  for (std::size_t i = 0; i < matrix.rows; ++i)
    for (std::size_t j = 0; j < matrix.cols; ++j) out.row(j)[i] = matrix.row(i)[j];
}

/// delta = ∂loss/∂scores; returns the loss.
double loss_of(MatrixView<const float> scores, MatrixView<const float> target, RouterLoss loss,
               Matrix<float>& delta) {
  double sum = 0;
  delta.resize(scores.rows, scores.cols);
  if (loss == RouterLoss::binary) {
    const double scale = 1 / static_cast<double>(scores.size());
    for (std::size_t i = 0; i < scores.size(); ++i) {
      const double z = scores.values()[i];
      const double y = target.values()[i];
      sum += std::max(z, 0.0) - z * y + std::log1p(std::exp(-std::abs(z)));
      delta.values()[i] = static_cast<float>((1 / (1 + std::exp(-z)) - y) * scale);
    }
    return sum * scale;
  }
  const double scale = 1 / static_cast<double>(scores.rows);
  for (std::size_t t = 0; t < scores.rows; ++t) {
    const std::span<const float> row = scores.row(t);
    const double most = *std::ranges::max_element(row);
    double total = 0;
    for (const float z : row) total += std::exp(z - most);
    for (std::size_t e = 0; e < row.size(); ++e) {
      const double log_p = row[e] - most - std::log(total);
      const double y = target.row(t)[e];
      if (y > 0) sum += y * (std::log(y) - log_p);
      delta.row(t)[e] = static_cast<float>((std::exp(log_p) - y) * scale);
    }
  }
  return sum * scale;
}

/// Adam with decoupled weight decay for one matrix.
class Adam {
 public:
  explicit Adam(const Matrix<float>& values)
      : first_(values.values().size(), 0.0), second_(values.values().size(), 0.0) {}

  void step(Matrix<float>& values, MatrixView<const float> gradient, double rate, double decay) {
    ++steps_;
    const double first_scale = 1 / (1 - std::pow(kFirst, steps_));
    const double second_scale = 1 / (1 - std::pow(kSecond, steps_));
    for (std::size_t i = 0; i < first_.size(); ++i) {
      const double g = gradient.values()[i];
      first_[i] = kFirst * first_[i] + (1 - kFirst) * g;
      second_[i] = kSecond * second_[i] + (1 - kSecond) * g * g;
      const double change = first_[i] * first_scale / (std::sqrt(second_[i] * second_scale) + 1e-8);
      const double value = values.values()[i];
      values.values()[i] = static_cast<float>(value - rate * (change + decay * value));
    }
  }

 private:
  static constexpr double kFirst = 0.9;
  static constexpr double kSecond = 0.999;
  std::vector<double> first_, second_;
  int steps_ = 0;
};

class Trainer {
 public:
  Trainer(RouterWeights& router, CalibrationTokens& tokens, const Matrix<float>& target,
          const RouterTraining& training, const RouterJudge& judge, std::stop_token stop)
      : router_(router),
        tokens_(tokens),
        target_(target),
        training_(training),
        judge_(judge),
        stop_(std::move(stop)),
        random_(training.seed, static_cast<std::uint64_t>(tokens.layer().info.index),
                RandomPurpose::router_training),
        weight_steps_(router.weight),
        output_steps_(router.output),
        gradients_(tokens.algebra()),
        scores_(tokens.algebra().make_matrix()) {
    hold_back();
  }

  void run() {
    Matrix<float> best_weight = copy(router_.weight);
    Matrix<float> best_output = copy(router_.output);
    double best = validate();
    double rate = training_.learning_rate;
    int waiting = 0;
    for (int epoch = 0; epoch < training_.epochs; ++epoch) {
      train_epoch(rate);
      const double now = validate();
      if (now > best) {
        best = now;
        best_weight = copy(router_.weight);
        best_output = copy(router_.output);
        waiting = 0;
      } else if (training_.decay_on_plateau && ++waiting == kPatience) {
        waiting = 0;
        rate *= kPlateauFactor;
        if (rate < training_.learning_rate / 100) break;
      }
    }
    router_.weight = std::move(best_weight);
    router_.output = std::move(best_output);
  }

 private:
  static constexpr int kPatience = 10;
  static constexpr double kPlateauFactor = 0.9;

  static Matrix<float> copy(const Matrix<float>& from) {
    Matrix<float> to(from.rows(), from.cols());
    std::ranges::copy(from.values(), to.values().begin());
    return to;
  }

  void hold_back() {
    const std::size_t runs = (tokens_.num_tokens() + kRunTokens - 1) / kRunTokens;
    std::vector<std::int32_t> order(runs);
    std::iota(order.begin(), order.end(), 0);
    shuffle(order, random_);
    // One run alone has to serve for both.
    const auto count =
        static_cast<std::size_t>(std::ceil(training_.validation * static_cast<double>(runs)));
    held_back_.assign(runs, false);
    for (std::size_t i = 0; i < std::min(count, runs - 1); ++i)
      held_back_[static_cast<std::size_t>(order[i])] = true;
    judge_all_ = runs == 1;
  }

  bool held_back(std::size_t token) const { return held_back_[token / kRunTokens]; }

  void train_epoch(double rate) {
    // Whole blocks are shuffled inside, so that no more than one is in memory.
    tokens_.for_each_inputs([&](const CalibrationTokens::Inputs& block) {
      if (stop_.stop_requested()) throw Interrupted("stopped by request");
      std::vector<std::int32_t> order;
      for (std::size_t t = 0; t < block.size(); ++t)
        if (!held_back(block.first + t)) order.push_back(static_cast<std::int32_t>(t));
      shuffle(order, random_);
      for (std::size_t first = 0; first < order.size(); first += training_.batch) {
        const std::size_t count = std::min(training_.batch, order.size() - first);
        take_batch(block, std::span(order).subspan(first, count));
        const RouterGradient gradient = gradients_.compute(
            router_, std::as_const(inputs_).view(), std::as_const(labels_).view(), training_.loss);
        weight_steps_.step(router_.weight, gradient.weight, rate, training_.weight_decay);
        output_steps_.step(router_.output, gradient.output, rate, training_.weight_decay);
      }
    });
  }

  void take_batch(const CalibrationTokens::Inputs& block, std::span<const std::int32_t> rows) {
    const MatrixView<const float> all = block.inputs.on_host();
    inputs_.resize(rows.size(), all.cols);
    labels_.resize(rows.size(), target_.cols());
    for (std::size_t i = 0; i < rows.size(); ++i) {
      const auto token = static_cast<std::size_t>(rows[i]);
      const std::span<const float> row = all.row(token);
      double squares = 0;
      for (const float value : row)
        squares += static_cast<double>(value) * static_cast<double>(value);
      const auto scale = static_cast<float>(1 / std::max(std::sqrt(squares), kLeastNorm));
      std::ranges::transform(row, inputs_.row(i).begin(), [&](float v) { return scale * v; });
      std::ranges::copy(target_.row(block.first + token), labels_.row(i).begin());
    }
  }

  double validate() {
    double sum = 0;
    const RouterOnBackend router(router_, tokens_.algebra());
    tokens_.for_each_inputs([&](const CalibrationTokens::Inputs& block) {
      router.scores(block.inputs, *scores_);
      const MatrixView<const float> scores = std::as_const(*scores_).on_host();
      for (std::size_t t = 0; t < scores.rows; ++t)
        if (judge_all_ || held_back(block.first + t))
          sum += judge_({scores.row(t).data(), 1, scores.cols}, block.first + t);
    });
    return sum;
  }

  RouterWeights& router_;
  CalibrationTokens& tokens_;
  const Matrix<float>& target_;
  const RouterTraining& training_;
  const RouterJudge& judge_;
  std::stop_token stop_;
  RandomStream random_;
  std::vector<bool> held_back_;
  bool judge_all_ = false;
  Adam weight_steps_, output_steps_;
  Matrix<float> inputs_, labels_;
  RouterGradients gradients_;
  std::unique_ptr<BackendMatrix> scores_;
};

}  // namespace

RouterGradients::RouterGradients(LinearAlgebra& algebra) : algebra_(algebra) {
  for (std::unique_ptr<BackendMatrix>* matrix :
       {&inputs_, &weight_, &output_, &inner_, &scores_, &delta_, &turned_, &back_,
        &weight_gradient_, &output_gradient_})
    *matrix = algebra.make_matrix();
}

RouterGradient RouterGradients::compute(const RouterWeights& router,
                                        MatrixView<const float> unit_inputs,
                                        MatrixView<const float> target, RouterLoss loss) {
  inputs_->assign(unit_inputs);
  weight_->assign(router.weight.view());
  output_->assign(router.output.view());
  algebra_.multiply_transposed(*inputs_, *weight_, *inner_);
  inner_->edit([](MatrixView<float> values) {
    for (float& value : values.values()) value = std::tanh(value);
  });
  algebra_.multiply_transposed(*inner_, *output_, *scores_);
  RouterGradient gradient;
  gradient.loss = loss_of(std::as_const(*scores_).on_host(), target, loss, delta_on_host_);
  delta_->assign(std::as_const(delta_on_host_).view());
  transpose(std::as_const(delta_on_host_).view(), turned_on_host_);
  turned_->assign(std::as_const(turned_on_host_).view());
  algebra_.multiply(*turned_, *inner_, *output_gradient_);
  algebra_.multiply(*delta_, *output_, *back_);
  const MatrixView<const float> inner = std::as_const(*inner_).on_host();
  back_->edit([&](MatrixView<float> values) {
    for (std::size_t i = 0; i < values.size(); ++i)
      values.values()[i] *= 1 - inner.values()[i] * inner.values()[i];
  });
  transpose(std::as_const(*back_).on_host(), turned_on_host_);
  turned_->assign(std::as_const(turned_on_host_).view());
  algebra_.multiply(*turned_, *inputs_, *weight_gradient_);
  gradient.output = std::as_const(*output_gradient_).on_host();
  gradient.weight = std::as_const(*weight_gradient_).on_host();
  return gradient;
}

void train_router(RouterWeights& router, CalibrationTokens& tokens, const Matrix<float>& target,
                  const RouterTraining& training, const RouterJudge& judge, std::stop_token stop) {
  require(target.rows() == tokens.num_tokens(), "a target for every token");
  Trainer(router, tokens, target, training, judge, std::move(stop)).run();
}

}  // namespace moefy
