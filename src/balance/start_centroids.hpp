#pragma once

#include "kmeans_context.hpp"
#include "moefy/core/random.hpp"

namespace moefy {

/// Distinct rows of the selection at random (all of them first, then again from the beginning, if
/// there are fewer rows than sites).
void start_from_random_rows(const KMeansContext& context, RowSelection selection,
                            RandomStream& random, Matrix<float>& centroids);

/// Greedy k-means++: every next centroid is the best of a few rows drawn in proportion to their
/// cost to the nearest centroid so far. Integer sums: every backend with equal costs draws the
/// same.
void start_from_plusplus(const KMeansContext& context, RandomStream& random,
                         Matrix<float>& centroids);

/// `iterations` of FAISS' Clustering on the selected rows, over an index of ours whose search is
/// the backend's. Its labels are thrown away. One thread, silent.
void start_from_faiss(const KMeansContext& context, RowSelection selection, int iterations,
                      RandomStream& random, Matrix<float>& centroids);

}  // namespace moefy
