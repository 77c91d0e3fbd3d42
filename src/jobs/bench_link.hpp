#pragma once

#include "bench_output.hpp"
#include "device_choice.hpp"
#include "moefy/backend/backend.hpp"
#include "moefy/jobs/bench.hpp"

namespace moefy {

/// Rank 0 sends to every other rank in turn, as it sends layers: over the host link and, where
/// every rank has a GPU of its own, over NCCL. Latency of a few bytes, bandwidth of pieces.
/// UsageError for a single rank. Collective.
void bench_link(const BenchJobConfig& config, const DeviceChoice& device, Backend& backend,
                JobContext& context, BenchOutput& output);

}  // namespace moefy
