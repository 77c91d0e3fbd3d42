#pragma once

#include <functional>

#include <faiss/Clustering.h>
#include <faiss/Index.h>

#include "kmeans_context.hpp"
#include "moefy/core/random.hpp"

namespace moefy {

/// FAISS' type of counts and labels, which its versions name differently.
using FaissCount = decltype(faiss::Index::ntotal);

/// Centroids [num_sites, dim] of FAISS' Clustering, which `train` runs on the selected rows for
/// `iterations`. Where there are no more rows than sites, or all rows are zero, random rows
/// instead. One thread, silent; FAISS' seed comes from `random`.
void cluster_with_faiss(const KMeansContext& context, RowSelection selection, int iterations,
                        RandomStream& random, const std::function<void(faiss::Clustering&)>& train,
                        Matrix<float>& centroids);

/// The selected rows [count, dim] one after another in host memory, copied if they are not there.
MatrixView<const float> training_rows(const KMeansContext& context, RowSelection selection);

}  // namespace moefy
