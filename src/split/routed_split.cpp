#include "moefy/split/routed_split.hpp"

#include <algorithm>
#include <cmath>

#include "moefy/core/error.hpp"
#include "recorded_splitter.hpp"

namespace moefy {

namespace {

/// Share of labels that may still change in the last round.
constexpr double kSettled = 0.01;

void stop_point(const std::stop_token& stop) {
  if (stop.stop_requested()) throw Interrupted("stopped by request");
}

/// One run of split_by_routing.
class Refinement {
 public:
  Refinement(CalibrationTokens& tokens, std::span<const float> token_weight,
             const SplitConfig& split, const RoutedSplitConfig& routed, SplitWorkspace& workspace,
             const std::stop_token& stop)
      : tokens_(tokens),
        layer_(tokens.layer()),
        token_weight_(token_weight),
        split_(split),
        routed_(routed),
        workspace_(workspace),
        stop_(stop),
        experts_(static_cast<std::size_t>(split.experts)),
        down_squares_(tokens.algebra().squared_row_norms(tokens.ffn().down())),
        ridge_(tokens, routed.router_ridge) {}

  RoutedSplit run() {
    result_.label = start();
    result_.router = fit_router();
    for (int round = 0; round < routed_.rounds; ++round) {
      stop_point(stop_);
      const std::size_t moved = reassign();
      result_.router = fit_router();
      if (static_cast<double>(moved) <= kSettled * static_cast<double>(result_.label.size())) break;
    }
    result_.router.logit_std = logit_spread(result_.router, tokens_);
    return std::move(result_);
  }

 private:
  RouterWeights fit_router() {
    stop_point(stop_);
    return ridge_.fit(tokens_, members_by_expert(result_.label, experts_));
  }

  std::vector<std::int32_t> start() {
    const RowSource source = rows_of(layer_);
    const SplitTask task{layer_.info, split_, source, nullptr, stop_, &tokens_};
    const std::vector<std::int32_t> routed =
        neurons_besides(pick_shared(task, workspace_), layer_.num_neurons());
    return labels_of_all(routed, cluster_gate_rows(task, workspace_, routed), layer_.num_neurons());
  }

  /// Energy that neuron i loses in expert e: column e; the last column is all its energy.
  Matrix<double> kept_energy() {
    LinearAlgebra& algebra = tokens_.algebra();
    const RouterOnBackend router(result_.router, algebra);
    const std::unique_ptr<ProductSum> kept =
        algebra.make_product_sum(layer_.num_neurons(), experts_ + 1);
    const std::unique_ptr<BackendMatrix> chosen = algebra.make_matrix();
    const std::unique_ptr<BackendMatrix> energy = algebra.make_matrix();
    const std::unique_ptr<BackendMatrix> wider = algebra.make_matrix();
    tokens_.for_each_block([&](const CalibrationTokens::Block& block) {
      router.choose(block.inputs, static_cast<std::size_t>(routed_.top_k), *chosen);
      const Matrix<float> chosen_or_all = with_ones(std::as_const(*chosen).on_host());
      wider->assign(chosen_or_all.view());
      algebra.weighted_squares(block.hidden, token_weight_.subspan(block.first, block.size()),
                               *energy);
      kept->add(*energy, *wider);
    });
    return kept->take();
  }

  static Matrix<float> with_ones(MatrixView<const float> chosen) {
    Matrix<float> wider(chosen.rows, chosen.cols + 1);
    for (std::size_t t = 0; t < chosen.rows; ++t) {
      std::ranges::copy(chosen.row(t), wider.row(t).begin());
      wider.row(t).back() = 1.0F;
    }
    return wider;
  }

  /// Costs [num_neurons, experts (+ 1 shared column of zeros)] as integers below 2^45.
  Matrix<std::int64_t> costs(double& quantum) {
    const Matrix<double> kept = kept_energy();
    const bool has_shared = split_.shared > 0;
    Matrix<std::int64_t> cost(layer_.num_neurons(), experts_ + (has_shared ? 1 : 0));
    double largest = 0;
    for (std::size_t i = 0; i < kept.rows(); ++i)
      largest = std::max(largest, kept.row(i).back() * down_squares_[i]);
    if (!std::isfinite(largest)) throw InputError("activations overflow: their energy is infinite");
    constexpr int kBits = 45;
    quantum = largest > 0 ? std::ldexp(1.0, std::ilogb(largest) + 1 - kBits) : 1.0;
    for (std::size_t i = 0; i < kept.rows(); ++i) {
      const double all = kept.row(i).back();
      for (std::size_t e = 0; e < experts_; ++e)
        cost.row(i)[e] =
            std::llround(std::max(0.0, all - kept.row(i)[e]) * down_squares_[i] / quantum);
      if (has_shared) cost.row(i)[experts_] = 0;
    }
    return cost;
  }

  Capacities capacities() const {
    const Capacities routed = routed_capacities(split_, layer_.num_neurons());
    std::vector<SizeBounds> bounds(routed.bounds().begin(), routed.bounds().end());
    const std::size_t shared = shared_neurons(split_, layer_.num_neurons());
    if (split_.shared > 0) bounds.push_back({shared, shared});
    return Capacities::bounded(std::move(bounds));
  }

  double total(const Matrix<std::int64_t>& cost, double quantum) const {
    double sum = 0;
    for (std::size_t i = 0; i < cost.rows(); ++i)
      sum += static_cast<double>(cost.row(i)[column(i)]);
    return sum * quantum;
  }

  std::size_t column(std::size_t neuron) const {
    const std::int32_t label = result_.label[neuron];
    return label == kSharedLabel ? experts_ : static_cast<std::size_t>(label);
  }

  /// Returns how many labels changed.
  std::size_t reassign() {
    double quantum = 1;
    const Matrix<std::int64_t> cost = costs(quantum);
    result_.lost_energy.push_back(total(cost, quantum));
    const Assignment best = balanced_assign(cost.view(), capacities());
    std::size_t moved = 0;
    for (std::size_t i = 0; i < best.label.size(); ++i) {
      const bool shared = static_cast<std::size_t>(best.label[i]) == experts_;
      const std::int32_t label = shared ? kSharedLabel : best.label[i];
      moved += label != result_.label[i];
      result_.label[i] = label;
    }
    result_.lost_energy.push_back(total(cost, quantum));
    return moved;
  }

  CalibrationTokens& tokens_;
  const FfnLayer& layer_;
  std::span<const float> token_weight_;
  const SplitConfig& split_;
  const RoutedSplitConfig& routed_;
  SplitWorkspace& workspace_;
  const std::stop_token& stop_;
  std::size_t experts_;
  std::vector<double> down_squares_;
  RidgeRouter ridge_;
  RoutedSplit result_;
};

}  // namespace

RoutedSplit split_by_routing(CalibrationTokens& tokens, std::span<const float> token_weight,
                             const SplitConfig& split, const RoutedSplitConfig& routed,
                             SplitWorkspace& workspace, std::stop_token stop) {
  require(token_weight.size() == tokens.num_tokens(), "a weight for every token");
  if (tokens.num_tokens() == 0) throw InputError("there are no tokens to calibrate with");
  return Refinement(tokens, token_weight, split, routed, workspace, stop).run();
}

std::vector<std::vector<std::int32_t>> members_by_expert(std::span<const std::int32_t> label,
                                                         std::size_t num_experts) {
  std::vector<std::vector<std::int32_t>> members(num_experts);
  for (std::size_t i = 0; i < label.size(); ++i)
    if (label[i] != kSharedLabel)
      members[static_cast<std::size_t>(label[i])].push_back(static_cast<std::int32_t>(i));
  return members;
}

}  // namespace moefy
