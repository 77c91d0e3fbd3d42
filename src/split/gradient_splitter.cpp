#include <algorithm>
#include <numeric>

#include "importance_scores.hpp"
#include "recorded_splitter.hpp"
#include "sharing_lists.hpp"

namespace moefy {

namespace {

/// One pass over all pairs, best score first (higher expert, then lower neuron on ties): a pair is
/// taken if neuron and expert are still free. The way of the LLaMA-MoE program.
std::vector<std::int32_t> assign_greedily(const Matrix<double>& scores,
                                          const Capacities& capacities) {
  const std::size_t experts = scores.rows();
  const std::size_t neurons = scores.cols();
  std::vector<std::size_t> order(experts * neurons);
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::sort(order, [&](std::size_t a, std::size_t b) {
    const double left = scores.values()[a];
    const double right = scores.values()[b];
    if (left != right) return left > right;
    return a / neurons != b / neurons ? a / neurons > b / neurons : a % neurons < b % neurons;
  });
  std::size_t larger = neurons;  // neurons beyond the lower bounds
  for (const SizeBounds& bound : capacities.bounds()) larger -= std::min(larger, bound.lower);
  std::vector<std::size_t> size(experts, 0);
  std::vector<std::int32_t> label(neurons, -1);
  for (const std::size_t pair : order) {
    const std::size_t e = pair / neurons;
    std::int32_t& chosen = label[pair % neurons];
    const SizeBounds& bound = capacities.bounds()[e];
    if (chosen >= 0 || size[e] == bound.upper || (size[e] >= bound.lower && larger == 0)) continue;
    if (size[e] >= bound.lower) --larger;
    ++size[e];
    chosen = static_cast<std::int32_t>(e);
  }
  return label;
}

/// The assignment of the largest total score; the lexicographically smallest of several.
std::vector<std::int32_t> assign_exactly(const Matrix<double>& scores,
                                         const Capacities& capacities) {
  Matrix<double> cost(scores.cols(), scores.rows());
  for (std::size_t i = 0; i < cost.rows(); ++i)
    for (std::size_t e = 0; e < cost.cols(); ++e) cost.row(i)[e] = -scores.row(e)[i];
  return balanced_assign(integer_costs(cost).view(), capacities).label;
}

double score_of_labels(const Matrix<double>& scores, std::span<const std::int32_t> label) {
  double total = 0;
  for (std::size_t i = 0; i < label.size(); ++i)
    total += scores.row(static_cast<std::size_t>(label[i]))[i];
  return total;
}

/// Experts of the neurons that matter most for one cluster of texts each (LLaMA-MoE, EMNLP 2024):
/// expert e and text cluster e belong together. Independent, or with neurons in several experts.
class GradientSplitter : public RecordedSplitter {
 public:
  std::string name() const override { return "gradient"; }
  RecordingNeed needs(const SplitConfig&) const override { return RecordingNeed::importance; }

  LayerResult split(const SplitTask& task, SplitWorkspace& workspace) const override {
    if (task.config.sharing == "none") return RecordedSplitter::split(task, workspace);
    const Matrix<double> scores = scores_of_experts(task);
    const std::size_t width = sharing_width(task.config, scores.cols());
    NeuronLists lists =
        task.config.sharing == "inner"
            ? inner_sharing(scores, width)
            : inter_sharing(scores, width, static_cast<std::size_t>(task.config.shared));
    const double kept = total_score(scores, lists);
    LayerResult result = result_of_lists(task, workspace, name(), std::move(lists));
    result.metrics.emplace_back("importance_kept", kept);
    return result;
  }

 protected:
  std::vector<std::int32_t> labels(const SplitTask& task, SplitWorkspace& /*workspace*/,
                                   Metrics& metrics) const override {
    const auto neurons = static_cast<std::size_t>(task.layer.num_neurons);
    const Matrix<double> scores = scores_of_experts(task);
    const std::size_t width =
        neurons / static_cast<std::size_t>(task.config.experts + task.config.shared);
    std::vector<std::int32_t> shared =
        wanted_by_most(scores, width, shared_neurons(task.config, neurons));
    std::ranges::sort(shared);
    const std::vector<std::int32_t> routed = neurons_besides(shared, neurons);
    Matrix<double> left(scores.rows(), routed.size());
    for (std::size_t e = 0; e < left.rows(); ++e)
      for (std::size_t i = 0; i < routed.size(); ++i)
        left.row(e)[i] = scores.row(e)[static_cast<std::size_t>(routed[i])];
    const Capacities capacities = routed_capacities(task.config, neurons);
    const std::vector<std::int32_t> label = task.config.assign == "greedy"
                                                ? assign_greedily(left, capacities)
                                                : assign_exactly(left, capacities);
    metrics.emplace_back("importance_kept", score_of_labels(left, label));
    return labels_of_all(routed, label, neurons);
  }
};

}  // namespace

std::unique_ptr<Splitter> make_gradient_splitter() { return std::make_unique<GradientSplitter>(); }

}  // namespace moefy
