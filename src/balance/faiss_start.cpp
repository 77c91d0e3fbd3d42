#include <algorithm>
#include <cmath>

#include "faiss_clustering.hpp"
#include "moefy/core/error.hpp"
#include "start_centroids.hpp"

namespace moefy {
namespace {

/// The search of FAISS' Clustering on rows that the backend already holds: FAISS hands over the
/// address of the training rows, we look at the resident ones.
class ResidentIndex final : public faiss::Index {
 public:
  ResidentIndex(const KMeansContext& context, RowSelection selection, const float* training_rows)
      : faiss::Index(static_cast<FaissCount>(context.dim()), faiss::METRIC_L2),
        context_(context),
        selection_(selection),
        training_rows_(training_rows) {}

  void add(FaissCount count, const float* centroids) override {
    centroids_.insert(centroids_.end(), centroids,
                      centroids + static_cast<std::size_t>(count) * context_.dim());
    ntotal += count;
  }
  void reset() override {
    centroids_.clear();
    ntotal = 0;
  }
  void search(FaissCount count, const float* x, FaissCount k, float* distances, FaissCount* labels,
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

}  // namespace

void start_from_faiss(const KMeansContext& context, RowSelection selection, int iterations,
                      RandomStream& random, Matrix<float>& centroids) {
  cluster_with_faiss(
      context, selection, iterations, random,
      [&](const float* rows) { return std::make_unique<ResidentIndex>(context, selection, rows); },
      centroids);
}

}  // namespace moefy
