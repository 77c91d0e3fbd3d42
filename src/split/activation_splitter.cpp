#include <algorithm>

#include "coactivation.hpp"
#include "moefy/balance/assignment.hpp"
#include "moefy/core/error.hpp"
#include "recorded_splitter.hpp"

namespace moefy {

namespace {

constexpr int kMostIterations = 100;

/// Balanced k-means of activation patterns, the 0/1 vectors over tokens, by their inner products
/// alone: ‖p_i - c_e‖² = K_ii - 2/m_e Σ_{j in e} K_ij + 1/m_e² Σ_{j,l in e} K_jl.
class PatternClustering {
 public:
  PatternClustering(const Matrix<double>& products, std::size_t experts,
                    std::vector<std::int32_t> start, ThreadPool& threads)
      : products_(products),
        threads_(threads),
        label_(std::move(start)),
        to_expert_(products.rows(), experts),
        within_(experts),
        size_(experts) {
    measure();
  }

  double inertia() const {
    double sum = 0;
    for (std::size_t i = 0; i < products_.rows(); ++i) sum += products_.row(i)[i];
    for (std::size_t e = 0; e < within_.size(); ++e)
      if (size_[e] > 0) sum -= within_[e] / size_[e];
    return sum;
  }

  /// One exact E-step; false if it does not lower the inertia, which ends at that labelling.
  bool improve(const Capacities& capacities) {
    const double before = inertia();
    std::vector<std::int32_t> label =
        balanced_assign(integer_costs(costs()).view(), capacities).label;
    if (label == label_) return false;
    std::swap(label, label_);
    measure();
    if (inertia() < before) return true;
    std::swap(label, label_);
    measure();
    return false;
  }

  const std::vector<std::int32_t>& label() const { return label_; }

 private:
  void measure() {
    std::ranges::fill(within_, 0.0);
    std::ranges::fill(size_, 0.0);
    constexpr std::size_t kRows = 64;
    threads_.for_each((products_.rows() + kRows - 1) / kRows, [&](std::size_t tile) {
      for (std::size_t i = tile * kRows; i < std::min(products_.rows(), (tile + 1) * kRows); ++i) {
        const std::span<double> sums = to_expert_.row(i);
        std::ranges::fill(sums, 0.0);
        const std::span<const double> row = products_.row(i);
        for (std::size_t j = 0; j < row.size(); ++j) sums[expert(j)] += row[j];
      }
    });
    for (std::size_t i = 0; i < label_.size(); ++i) {
      within_[expert(i)] += to_expert_.row(i)[expert(i)];
      size_[expert(i)] += 1;
    }
  }

  Matrix<double> costs() const {
    Matrix<double> cost(to_expert_.rows(), to_expert_.cols());
    for (std::size_t e = 0; e < cost.cols(); ++e) {
      const double size = std::max(1.0, size_[e]);
      const double square = within_[e] / (size * size);
      for (std::size_t i = 0; i < cost.rows(); ++i)
        cost.row(i)[e] = square - 2 * to_expert_.row(i)[e] / size;
    }
    return cost;
  }

  std::size_t expert(std::size_t i) const { return static_cast<std::size_t>(label_[i]); }

  const Matrix<double>& products_;
  ThreadPool& threads_;
  std::vector<std::int32_t> label_;
  Matrix<double> to_expert_;           ///< [n, E] Σ_{j in e} K_ij
  std::vector<double> within_, size_;  ///< [E] Σ_{i,j in e} K_ij, and members
};

/// Experts of neurons that are active on the same tokens (the idea of CMoE, arXiv 2502.04416, with
/// exact sizes and iterated to the fixpoint).
class ActivationSplitter : public RecordedSplitter {
 public:
  std::string name() const override { return "activation"; }

 protected:
  std::vector<std::int32_t> labels(const SplitTask& task, SplitWorkspace& workspace,
                                   Metrics& metrics) const override {
    const auto neurons = static_cast<std::size_t>(task.layer.num_neurons);
    const std::vector<std::int32_t> routed = neurons_besides(pick_shared(task, workspace), neurons);
    SplitConfig counting = task.config;
    counting.coactivation = "count";
    const Matrix<double> products = count_coactivation(*task.tokens, counting, routed);
    const Capacities capacities = routed_capacities(task.config, neurons);
    PatternClustering clustering(products, static_cast<std::size_t>(task.config.experts),
                                 cluster_gate_rows(task, workspace, routed),
                                 task.tokens->threads());
    metrics.emplace_back("pattern_inertia_first", clustering.inertia());
    int iterations = 0;
    while (iterations < kMostIterations && clustering.improve(capacities)) {
      ++iterations;
      if (task.stop.stop_requested()) throw Interrupted("stopped by request");
    }
    metrics.emplace_back("pattern_inertia", clustering.inertia());
    metrics.emplace_back("pattern_iterations", iterations);
    return labels_of_all(routed, clustering.label(), neurons);
  }
};

}  // namespace

std::unique_ptr<Splitter> make_activation_splitter() {
  return std::make_unique<ActivationSplitter>();
}

}  // namespace moefy
