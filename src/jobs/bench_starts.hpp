#pragma once

#include "bench_output.hpp"
#include "moefy/backend/backend.hpp"
#include "moefy/jobs/bench.hpp"

namespace moefy {

/// Clusters rows of random blobs once from each start that this build and backend have: seconds of
/// the start and of the whole, the inertia of the best balanced assignment to the start's centroids
/// and that of the result. Collective; every rank works on its own copy at the same time.
void bench_starts(const BenchJobConfig& config, Backend& backend, JobContext& context,
                  BenchOutput& output);

}  // namespace moefy
