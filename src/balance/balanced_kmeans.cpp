#include "moefy/balance/balanced_kmeans.hpp"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "common_mean.hpp"
#include "early_stages.hpp"
#include "exact_em.hpp"
#include "faiss_gpu.hpp"
#include "fixed_point.hpp"
#include "inertia.hpp"
#include "kmeans_context.hpp"
#include "moefy/core/error.hpp"
#include "start_centroids.hpp"

namespace moefy {
namespace {

// int8 shortcuts pay from this many products on.
constexpr std::size_t kShortcutProducts = std::size_t{1} << 22;
// A unit of int8 times 127 times this many elements still fits int32.
constexpr std::size_t kLargestQuantizedDim = std::size_t{1} << 16;
// Sums of this many 41-bit values fit int64.
constexpr std::size_t kMostRows = std::size_t{1} << 22;

void check_arguments(const RowsView& rows, const Capacities& capacities,
                     const BalancedKMeansConfig& config) {
  if (rows.rows == 0 || rows.cols == 0) {
    throw InputError(fmt::format("cannot cluster {} rows of {} columns", rows.rows, rows.cols));
  }
  if (rows.rows > kMostRows) {
    throw InputError(fmt::format("{} rows are more than balanced k-means can sum exactly ({})",
                                 rows.rows, kMostRows));
  }
  capacities.check_feasible(rows.rows);
  if (config.max_iterations < 1) throw UsageError("balanced k-means needs at least one iteration");
  if (config.num_redo < 1) throw UsageError("balanced k-means needs at least one start");
}

/// Centroids, prices and labels of an earlier result, in the rows as used now.
void apply_warm_start(const KMeansContext& context, const WarmStart& warm,
                      std::span<const float> common_mean, Clustering& clustering) {
  const std::size_t num_sites = context.num_sites;
  Matrix<float> centroids(num_sites, context.dim());
  if (warm.centroids.rows() == num_sites) {
    for (std::size_t j = 0; j < num_sites; ++j) {
      const auto from = warm.centroids.row(j);
      const auto to = centroids.row(j);
      for (std::size_t l = 0; l < to.size(); ++l) {
        to[l] = common_mean.empty() ? from[l] : from[l] - common_mean[l];
      }
    }
  } else {
    // Sites without rows keep these.
    std::vector<std::int32_t> rows(num_sites);
    for (std::size_t j = 0; j < num_sites; ++j) {
      rows[j] = static_cast<std::int32_t>(j % context.num_rows());
    }
    context.backend.read_rows(context.points, rows, centroids.view());
  }
  clustering.centroids->assign(centroids.view());
  for (std::size_t j = 0; j < warm.prices.size(); ++j) {
    clustering.prices[j] = price_from_real(warm.prices[j], context.cost_scale_log2);
  }
  if (!warm.label.empty()) {
    assign_labels(context, {}, warm.label, clustering);
    update_centroids(context, false, clustering);
  }
}

void check_warm_start(const WarmStart& warm, const RowsView& rows, std::size_t num_sites) {
  const auto expect = [](const char* what, std::size_t found, std::size_t expected) {
    if (found != 0 && found != expected) {
      throw InputError(fmt::format("start: {} {}, expected {}", found, what, expected));
    }
  };
  expect("labels", warm.label.size(), rows.rows);
  expect("centroids", warm.centroids.rows(), num_sites);
  expect("prices", warm.prices.size(), num_sites);
  if (warm.centroids.rows() > 0) expect("columns", warm.centroids.cols(), rows.cols);
  if (warm.label.empty() && warm.centroids.rows() == 0) {
    throw InputError("start: neither labels nor centroids");
  }
  for (std::size_t i = 0; i < warm.label.size(); ++i) {
    if (warm.label[i] < 0 || static_cast<std::size_t>(warm.label[i]) >= num_sites) {
      throw InputError(fmt::format("start: row {} has label {}, expected 0..{}", i, warm.label[i],
                                   num_sites - 1));
    }
  }
}

/// Centroids and prices from which the exact EM begins.
void cold_start(const KMeansContext& context, const BalancedKMeansConfig& config,
                RandomStream& random, FaissGpu& faiss_gpu, Clustering& clustering) {
  const bool thin = config.schedule.subsample && context.quantized;
  const RowSelection selection = thin ? start_selection(context) : RowSelection{};
  Matrix<float> centroids(context.num_sites, context.dim());
  context.times.measure("start", [&] {
    switch (config.start) {
      case StartMethod::faiss:
        start_from_faiss(context, selection, config.schedule.faiss_iterations, random, centroids);
        return;
      case StartMethod::faiss_gpu:
        faiss_gpu.start(context, selection, config.schedule.faiss_iterations, random, centroids);
        return;
      case StartMethod::kmeanspp:
        start_from_plusplus(context, random, centroids);
        return;
      case StartMethod::random:
        start_from_random_rows(context, selection, random, centroids);
        return;
    }
  });
  clustering.centroids->assign(centroids.view());
}

/// Brings a start near a balanced solution of the subsample, then loosely to one of all rows. All
/// of it on int8 costs: it only chooses where the exact EM begins. A start from random rows is the
/// cheaper of two; `second` is memory for the other one.
void approach(const KMeansContext& context, const BalancedKMeansConfig& config,
              RandomStream& random, Clustering& second, Clustering& clustering) {
  EarlyStage thinned;
  thinned.selection = config.schedule.subsample ? start_selection(context) : RowSelection{};
  thinned.max_iterations = 12;
  thinned.loose_iterations = 3;
  thinned.price_passes = 2;
  if (thinned.selection.step > 1) {
    const std::int64_t cost = run_early_stage(context, thinned, clustering);
    if (config.start == StartMethod::random) {
      second.reset(context);
      Matrix<float> centroids(context.num_sites, context.dim());
      start_from_random_rows(context, thinned.selection, random, centroids);
      second.centroids->assign(centroids.view());
      if (run_early_stage(context, thinned, second) < cost) std::swap(clustering, second);
    }
  }
  EarlyStage whole;
  whole.max_iterations = 3;
  whole.loose_iterations = 3;
  whole.price_passes = 1;
  run_early_stage(context, whole, clustering);
}

}  // namespace

struct BalancedKMeans::Impl {
  explicit Impl(Backend& backend_in)
      : backend(backend_in),
        solver(backend_in),
        points(backend_in.make_points()),
        open_points(backend_in.make_points()),
        earlier(backend_in),
        clustering(backend_in),
        second(backend_in) {}

  Backend& backend;
  AssignmentSolver solver;
  std::unique_ptr<Points> points;
  std::unique_ptr<Points> open_points;
  EarlierCentroids earlier;
  Clustering clustering;
  Clustering second;
  AlignedBuffer<float> training_rows;
  FaissGpu faiss_gpu;

  BalancedKMeansResult run_once(const KMeansContext& context, const BalancedKMeansConfig& config,
                                RandomStream& random, const WarmStart* warm,
                                std::span<const float> common_mean);
};

BalancedKMeansResult BalancedKMeans::Impl::run_once(const KMeansContext& context,
                                                    const BalancedKMeansConfig& config,
                                                    RandomStream& random, const WarmStart* warm,
                                                    std::span<const float> common_mean) {
  clustering.reset(context);
  if (warm != nullptr) {
    apply_warm_start(context, *warm, common_mean, clustering);
  } else {
    cold_start(context, config, random, faiss_gpu, clustering);
    if (context.quantized && config.schedule.loose_iterations) {
      approach(context, config, random, second, clustering);
    }
  }
  EmOutcome outcome = run_exact_em(context, config.max_iterations, clustering);

  BalancedKMeansResult result;
  const double quantum = std::ldexp(1.0, -context.cost_scale_log2);
  result.centroids.resize(context.num_sites, context.dim());
  clustering.centroids->read(result.centroids.view());
  const SumsView sums = clustering.sums->on_host(all_sites(context.num_sites));
  result.inertia = context.times.measure("check", [&] {
    return inertia_of_sums(context.backend, context.points, sums, result.centroids.view(),
                           clustering.label);
  });
  result.inertia_random = random_inertia(context.points, sums, context.num_sites);
  result.label = std::move(clustering.label);
  result.prices = std::move(clustering.prices);
  add_to_rows(common_mean, result.centroids);
  result.cost_scale_log2 = context.cost_scale_log2;
  result.stop_reason = outcome.stop_reason;
  for (std::int64_t cost : outcome.trace) {
    result.trace.push_back(static_cast<double>(cost) * quantum);
  }
  result.steps = std::move(outcome.steps);
  result.inertia_initial = result.trace.front();
  result.inertia_unconstrained = static_cast<double>(outcome.certificate.unconstrained) * quantum;
  result.duality_gap = relative_gap(outcome.certificate);
  result.zero_rows = context.points.zero_rows;
  result.exact_columns = outcome.columns;
  return result;
}

BalancedKMeans::BalancedKMeans(Backend& backend) : impl_(std::make_unique<Impl>(backend)) {}
BalancedKMeans::~BalancedKMeans() = default;

BalancedKMeansResult BalancedKMeans::run(const RowsView& rows, const Capacities& capacities,
                                         const BalancedKMeansConfig& config, std::uint64_t layer,
                                         const WarmStart* warm, std::stop_token stop) {
  check_arguments(rows, capacities, config);
  const std::size_t num_sites = capacities.bounds().size();
  if (warm != nullptr) check_warm_start(*warm, rows, num_sites);
  PhaseTimes times;
  Backend& backend = impl_->backend;
  Points& points = *impl_->points;
  const bool quantized =
      rows.size() * num_sites >= kShortcutProducts && rows.cols <= kLargestQuantizedDim;
  const std::vector<float> common_mean = times.measure("prepare", [&] {
    return load_centered(backend, rows, quantized, *impl_->clustering.sums, points);
  });
  double largest_norm = points.max_squared_norm;
  if (warm != nullptr && warm->centroids.rows() > 0) {
    largest_norm = std::max(largest_norm, largest_squared_norm(warm->centroids, common_mean));
  }
  const KMeansContext context{backend,
                              impl_->solver,
                              points,
                              *impl_->open_points,
                              impl_->earlier,
                              capacities,
                              num_sites,
                              cost_scale_log2(largest_norm),
                              sum_scale_log2(points.max_abs),
                              quantized,
                              times,
                              impl_->training_rows,
                              stop};

  BalancedKMeansResult best;
  const int starts = warm != nullptr ? 1 : config.num_redo;
  for (int redo = 0; redo < starts; ++redo) {
    RandomStream random(config.seed, layer, RandomPurpose::initial_rows,
                        static_cast<std::uint32_t>(redo));
    BalancedKMeansResult result = impl_->run_once(context, config, random, warm, common_mean);
    if (redo == 0 || result.inertia < best.inertia) best = std::move(result);
  }
  best.seconds = times.seconds();
  return best;
}

}  // namespace moefy
