#pragma once

#include "bench_output.hpp"
#include "moefy/jobs/bench.hpp"

namespace moefy {

/// Converts a synthetic Llama checkpoint in a temporary folder (TMPDIR) and compares with copying
/// the same files block by block, in turns. Collective.
void bench_convert(const BenchJobConfig& config, JobContext& context, BenchOutput& output);

}  // namespace moefy
