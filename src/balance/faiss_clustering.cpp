#include "faiss_clustering.hpp"

#include <algorithm>
#include <string>

#include <omp.h>

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

}  // namespace

MatrixView<const float> training_rows(const KMeansContext& context, RowSelection selection) {
  const RowsView& rows = context.points.rows;
  if (selection.step == 1 && rows.space == MemorySpace::host) return rows.on_host();
  std::vector<std::int32_t> selected(selection.count(rows.rows));
  for (std::size_t i = 0; i < selected.size(); ++i)
    selected[i] = static_cast<std::int32_t>(selection.global(i));
  AlignedBuffer<float>& copy = context.training_rows;
  copy.resize(selected.size() * context.dim());
  const MatrixView<float> view(copy.data(), selected.size(), context.dim());
  context.backend.read_rows(context.points, selected, view);
  return {view.data, view.rows, view.cols};
}

void cluster_with_faiss(const KMeansContext& context, RowSelection selection, int iterations,
                        RandomStream& random, const std::function<void(faiss::Clustering&)>& train,
                        Matrix<float>& centroids) {
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
  train(clustering);
  require(clustering.centroids.size() == centroids.values().size(), "FAISS returns all centroids");
  std::copy(clustering.centroids.begin(), clustering.centroids.end(), centroids.values().begin());
}

std::string faiss_version() {
  return std::to_string(FAISS_VERSION_MAJOR) + "." + std::to_string(FAISS_VERSION_MINOR) + "." +
         std::to_string(FAISS_VERSION_PATCH);
}

}  // namespace moefy
