#include <omp.h>
#include <string>

#include <algorithm>
#include <cmath>

#include <faiss/Clustering.h>
#include <faiss/Index.h>

#include "moefy/core/error.hpp"
#include "start_centroids.hpp"

namespace moefy {
namespace {

/// FAISS updates the centroids with OpenMP loops; its threads would spin beside ours.
class OneOpenMpThread {
 public:
  OneOpenMpThread() : before_(omp_get_max_threads()) { omp_set_num_threads(1); }
  ~OneOpenMpThread() { omp_set_num_threads(before_); }
  OneOpenMpThread(const OneOpenMpThread&) = delete;
  OneOpenMpThread& operator=(const OneOpenMpThread&) = delete;

 private:
  int before_;
};

/// The search of FAISS' Clustering on rows that the backend already holds: FAISS hands over the
/// address of the training rows, we look at the resident ones.
class ResidentIndex final : public faiss::Index {
 public:
  ResidentIndex(const KMeansContext& context, RowSelection selection, const float* training_rows)
      : faiss::Index(static_cast<idx_t>(context.dim()), faiss::METRIC_L2),
        context_(context),
        selection_(selection),
        training_rows_(training_rows) {}

  void add(idx_t count, const float* centroids) override {
    centroids_.insert(centroids_.end(), centroids,
                      centroids + static_cast<std::size_t>(count) * context_.dim());
    ntotal += count;
  }
  void reset() override {
    centroids_.clear();
    ntotal = 0;
  }
  void search(idx_t count, const float* x, idx_t k, float* distances, idx_t* labels,
              const faiss::SearchParameters* /*parameters*/) const override {
    require(x == training_rows_ && k == 1, "FAISS searches the training rows it was given");
    context_.check_stop();
    const auto num_centroids = static_cast<std::size_t>(ntotal);
    const MatrixView<const float> centroids(centroids_.data(), num_centroids, context_.dim());
    const CostView q =
        context_.backend.cost_buffer(0, static_cast<std::size_t>(count), num_centroids);
    if (context_.quantized) {
      context_.backend.approximate_costs(context_.points, selection_, centroids,
                                         context_.cost_scale_log2, q);
    } else {
      // Without int8 rows the problem is small and every row is selected.
      context_.backend.costs(context_.points, centroids, context_.cost_scale_log2,
                             all_sites(num_centroids), q);
    }
    std::vector<std::int32_t> prices(q.stride, kNoSite);
    std::fill_n(prices.begin(), num_centroids, 0);
    context_.backend.best_sites(q, prices, true, choice_);
    const float quantum = std::ldexp(1.0F, -context_.cost_scale_log2);
    for (std::size_t i = 0; i < q.num_rows; ++i) {
      labels[i] = choice_.label[i];
      distances[i] = quantum * static_cast<float>(choice_.best[i]);
    }
  }

 private:
  const KMeansContext& context_;
  RowSelection selection_;
  const float* training_rows_;
  std::vector<float> centroids_;
  mutable SiteChoice choice_;
};

/// The selected rows one after another; the rows themselves if all are selected and lie here.
const float* training_rows(const KMeansContext& context, RowSelection selection,
                           std::size_t count) {
  const RowsView& rows = context.points.rows;
  if (selection.step == 1 && rows.space == MemorySpace::host) return rows.data;
  std::vector<std::int32_t> selected(count);
  for (std::size_t i = 0; i < count; ++i) {
    selected[i] = static_cast<std::int32_t>(selection.global(i));
  }
  AlignedBuffer<float>& copy = context.training_rows;
  copy.resize(count * context.dim());
  context.backend.read_rows(context.points, selected, {copy.data(), count, context.dim()});
  return copy.data();
}

}  // namespace

void start_from_faiss(const KMeansContext& context, RowSelection selection, int iterations,
                      RandomStream& random, Matrix<float>& centroids) {
  const std::size_t count = selection.count(context.num_rows());
  const std::size_t num_sites = context.num_sites;
  if (count <= num_sites || context.points.max_squared_norm == 0) {
    start_from_random_rows(context, selection, random, centroids);
    return;
  }
  const OneOpenMpThread one_thread;
  faiss::ClusteringParameters parameters;
  parameters.niter = iterations;
  parameters.nredo = 1;
  parameters.verbose = false;
  parameters.seed = static_cast<int>(random.next_word() >> 1);
  parameters.min_points_per_centroid = 1;
  // Above this FAISS would draw a subsample of its own.
  parameters.max_points_per_centroid = static_cast<int>(count / num_sites + 1);
#if FAISS_VERSION_MAJOR > 1 || (FAISS_VERSION_MAJOR == 1 && FAISS_VERSION_MINOR >= 12)
  parameters.check_input_data_for_NaNs = false;  // `load` has looked at every element
#endif
  faiss::Clustering clustering(static_cast<int>(context.dim()), static_cast<int>(num_sites),
                               parameters);
  const float* rows = training_rows(context, selection, count);
  ResidentIndex index(context, selection, rows);
  clustering.train(static_cast<faiss::Clustering::idx_t>(count), rows, index);
  require(clustering.centroids.size() == centroids.values().size(), "FAISS returns all centroids");
  std::copy(clustering.centroids.begin(), clustering.centroids.end(), centroids.values().begin());
}

std::string faiss_version() {
  return std::to_string(FAISS_VERSION_MAJOR) + "." + std::to_string(FAISS_VERSION_MINOR) + "." +
         std::to_string(FAISS_VERSION_PATCH);
}

}  // namespace moefy
