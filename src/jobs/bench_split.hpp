#pragma once

#include "bench_output.hpp"
#include "moefy/backend/backend.hpp"
#include "moefy/jobs/bench.hpp"

namespace moefy {

/// Splits layers of random blobs that lie in memory: everything of a layer but reading and
/// writing. Collective; every rank works on its own copy at the same time.
void bench_split(const BenchJobConfig& config, Backend& backend, JobContext& context,
                 BenchOutput& output);

}  // namespace moefy
