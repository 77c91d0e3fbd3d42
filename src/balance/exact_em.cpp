#include "exact_em.hpp"

#include <algorithm>
#include <limits>
#include <optional>

#include "moefy/core/error.hpp"
#include "open_rows.hpp"

namespace moefy {
namespace {

constexpr RowSelection kAllRows{};
// One call computes at most this many products, so that a stop is noticed soon.
constexpr std::size_t kProductsPerCall = std::size_t{1} << 33;

class ExactEm {
 public:
  ExactEm(const KMeansContext& context, int max_iterations, Clustering& clustering)
      : context_(context),
        max_iterations_(max_iterations),
        clustering_(clustering),
        base_(context.backend.cost_buffer(1, context.num_rows(), context.num_sites)),
        base_centroids_(*context.earlier.base),
        shortcuts_(context.quantized),
        new_label_(context.num_rows()) {
    context.earlier.resize(context.num_sites, context.dim());
  }

  EmOutcome run() {
    labels_count_ = feasible(clustering_.label);
    while (!exact_step()) {
      if (shortcuts_) shortcut_steps();
    }
    refresh_base();  // nothing to do at a fixpoint: the centroids have not moved since
    outcome_.certificate = context_.times.measure("check", [&] {
      return check_certificate(context_.backend, base_, context_.capacities, clustering_.prices,
                               clustering_.label);
    });
    if (outcome_.stop_reason == StopReason::fixpoint) {
      require(outcome_.certificate.optimal(), "an assignment at the fixpoint is optimal");
    }
    return std::move(outcome_);
  }

 private:
  bool feasible(std::span<const std::int32_t> label) const {
    if (label.size() != context_.num_rows()) return false;
    const auto bounds = context_.capacities.bounds();
    for (std::size_t j = 0; j < bounds.size(); ++j) {
      const auto size = static_cast<std::size_t>(clustering_.sums->count[j]);
      if (size < bounds[j].lower || size > bounds[j].upper) return false;
    }
    return true;
  }

  /// Brings base_ to the costs of the present centroids; a centroid that did not move keeps its
  /// column.
  void refresh_base() {
    const std::vector<std::int32_t> columns =
        has_base_ ? clustering_.centroids->changed_sites(base_centroids_)
                  : all_sites(context_.num_sites);
    const std::size_t per_column = context_.num_rows() * context_.dim();
    const std::size_t batch = std::max<std::size_t>(
        32, kProductsPerCall / std::max<std::size_t>(per_column, 1) / 32 * 32);
    context_.times.measure("costs", [&] {
      for (std::size_t begin = 0; begin < columns.size(); begin += batch) {
        context_.check_stop();
        context_.backend.costs(
            context_.points, clustering_.centroids->view(), context_.cost_scale_log2,
            std::span(columns).subspan(begin, std::min(batch, columns.size() - begin)), base_);
      }
    });
    base_centroids_.assign(clustering_.centroids->view());
    has_base_ = true;
    outcome_.columns += static_cast<std::int64_t>(columns.size());
  }

  SolverStatistics solve(const CostView& q, const Capacities& capacities, bool canonical,
                         std::span<std::int32_t> label) {
    context_.check_stop();
    return context_.times.measure("solve", [&] {
      return context_.solver.solve(q, capacities, canonical, clustering_.prices, label);
    });
  }

  /// One fp32 E-step and the means that follow; true: stop.
  bool exact_step() {
    refresh_base();
    const SolverStatistics statistics = solve(base_, context_.capacities, true, new_label_);
    const std::int64_t cost = context_.backend.total_cost(base_, new_label_);
    const bool still_optimal =
        labels_count_ && context_.backend.total_cost(base_, clustering_.label) == cost;
    const bool lower = outcome_.trace.empty() || cost < outcome_.trace.back();
    if (!lower && took_shortcuts_) {
      undo_shortcuts();
      return false;
    }
    outcome_.trace.push_back(cost);
    outcome_.steps.push_back(statistics);
    took_shortcuts_ = false;
    if (still_optimal || !lower) {
      outcome_.stop_reason = still_optimal ? StopReason::fixpoint : StopReason::rounding;
      return true;
    }
    assign_labels(context_, kAllRows, new_label_, clustering_);
    labels_count_ = true;
    const bool last = outcome_.trace.size() >= static_cast<std::size_t>(max_iterations_);
    exact_prices_ = clustering_.prices;
    update_centroids(context_, !last, clustering_);
    exact_label_ = clustering_.label;
    outcome_.stop_reason = StopReason::cap;
    return last;
  }

  /// E-steps on base_ plus the int8 change of cost since, until the labels stand still.
  void shortcut_steps() {
    const CostView q = context_.backend.cost_buffer(0, context_.num_rows(), context_.num_sites);
    std::int64_t cost_before = std::numeric_limits<std::int64_t>::max();
    Centroids& computed = *context_.earlier.computed;
    computed.assign(base_centroids_.view());
    for (bool first = true;; first = false) {
      change_costs(context_.points, base_, computed, first, q);
      solve(q, context_.capacities, false, new_label_);
      const std::int64_t cost = context_.backend.total_cost(q, new_label_);
      if (cost >= cost_before || context_.backend.total_cost(q, clustering_.label) == cost) return;
      cost_before = cost;
      took_shortcuts_ = true;
      take_new_labels();
      settle_open_rows(q, computed);
    }
  }

  /// A few shortcut steps of the rows that may still move. Costs q are those of `centroids_of_q`.
  void settle_open_rows(const CostView& q, const Centroids& centroids_of_q) {
    const std::optional<OpenRows> open = context_.times.measure("open rows", [&] {
      return OpenRows::find(context_, q, centroids_of_q, base_, clustering_);
    });
    if (!open) return;
    constexpr int kMostSteps = 6;  // then all rows are looked at again
    const CostView open_q = context_.backend.cost_buffer(3, open->count(), context_.num_sites);
    std::vector<std::int32_t> label(open->count());
    std::vector<std::int32_t> new_label(open->count());
    Centroids& computed = *context_.earlier.open_computed;
    computed.assign(base_centroids_.view());
    for (int step = 0; step < kMostSteps; ++step) {
      change_costs(open->points(), open->base(), computed, step == 0, open_q);
      open->gather(clustering_.label, label);
      solve(open_q, open->capacities(), false, new_label);
      if (context_.backend.total_cost(open_q, label) ==
          context_.backend.total_cost(open_q, new_label))
        return;
      open->scatter(new_label, new_label_);
      take_new_labels();
    }
  }

  /// q = base + the int8 change of cost since base_centroids_; `computed`: the centroids of q so
  /// far, afterwards the present ones.
  void change_costs(const Points& points, const CostView& base, Centroids& computed, bool first,
                    const CostView& q) {
    context_.check_stop();
    const auto columns = clustering_.centroids->changed_sites(computed);
    context_.times.measure("changes of cost", [&] {
      context_.backend.changed_costs(points, base_centroids_.view(), clustering_.centroids->view(),
                                     context_.cost_scale_log2, columns, first, base, q);
    });
    computed.assign(clustering_.centroids->view());
  }

  void take_new_labels() {
    assign_labels(context_, kAllRows, new_label_, clustering_);
    update_centroids(context_, true, clustering_);
  }

  /// Back to the labels of the last fp32 E-step; from now on fp32 only.
  void undo_shortcuts() {
    shortcuts_ = false;
    took_shortcuts_ = false;
    assign_labels(context_, kAllRows, exact_label_, clustering_);
    clustering_.prices = exact_prices_;
    update_centroids(context_, false, clustering_);
  }

  const KMeansContext& context_;
  int max_iterations_;
  Clustering& clustering_;
  CostView base_;  // fp32 costs of base_centroids_
  Centroids& base_centroids_;
  bool has_base_ = false;
  bool shortcuts_;
  bool took_shortcuts_ = false;
  bool labels_count_ = false;  // clustering_.label is a feasible assignment
  std::vector<std::int32_t> new_label_;
  std::vector<std::int32_t> exact_label_;
  std::vector<std::int32_t> exact_prices_;
  EmOutcome outcome_;
};

}  // namespace

EmOutcome run_exact_em(const KMeansContext& context, int max_iterations, Clustering& clustering) {
  return ExactEm(context, max_iterations, clustering).run();
}

}  // namespace moefy
