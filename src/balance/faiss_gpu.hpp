#pragma once

#include <memory>

#include "kmeans_context.hpp"
#include "moefy/core/random.hpp"

namespace moefy {

/// The start over FAISS' own index on a GPU (StartMethod::faiss_gpu), and what FAISS keeps for that
/// GPU: made at the first start, one a rank.
class FaissGpu {
 public:
  FaissGpu();
  ~FaissGpu();
  FaissGpu(const FaissGpu&) = delete;
  FaissGpu& operator=(const FaissGpu&) = delete;

  /// As start_from_faiss, but distances are computed by FAISS on the backend's GPU, which it copies
  /// the rows to from host memory in every iteration. UsageError if this build has no such FAISS or
  /// the backend no GPU, DeviceError if the GPU has not the memory. Where a call of CUDA itself
  /// fails, FAISS ends the process with a message of its own.
  void start(const KMeansContext& context, RowSelection selection, int iterations,
             RandomStream& random, Matrix<float>& centroids);

 private:
  struct Resources;
  std::unique_ptr<Resources> resources_;
};

}  // namespace moefy
