#pragma once

#include "bench_output.hpp"
#include "device_choice.hpp"
#include "moefy/jobs/bench.hpp"

namespace moefy {

/// Times single kernels on the GPU of this rank, beside what bounds them (see time_cuda_kernels).
/// UsageError without a GPU.
void bench_kernels(const BenchJobConfig& config, const DeviceChoice& device, BenchOutput& output);

}  // namespace moefy
