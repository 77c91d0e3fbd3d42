#pragma once

#include <functional>
#include <memory>

#include <faiss/Index.h>

#include "kmeans_context.hpp"
#include "moefy/core/random.hpp"

namespace moefy {

/// FAISS' type of counts and labels, which its versions name differently.
using FaissCount = decltype(faiss::Index::ntotal);

/// `iterations` of FAISS' Clustering on the selected rows, over the index that `make_index` returns
/// for them; it is given the address of the rows [count, dim] in host memory, one after another,
/// which Clustering will search for. FAISS' labels are thrown away; centroids [num_sites, dim].
/// Where there are no more rows than sites, or all rows are zero, random rows instead. One thread,
/// silent; FAISS' seed comes from `random`.
void cluster_with_faiss(
    const KMeansContext& context, RowSelection selection, int iterations, RandomStream& random,
    const std::function<std::unique_ptr<faiss::Index>(const float* rows)>& make_index,
    Matrix<float>& centroids);

}  // namespace moefy
