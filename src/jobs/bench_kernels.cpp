#include "bench_kernels.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "moefy/backend/cublas.hpp"
#include "moefy/backend/kernel_timings.hpp"
#include "moefy/core/error.hpp"

namespace moefy {

namespace {

/// A pass of costs takes at most so many times what bounds it: the memory that it reads, or, where
/// there are many sites, its products.
constexpr double kMostTimesTheBound = 2;

const KernelTiming* find(const KernelTimings& timings, const std::string& name) {
  const auto timing = std::ranges::find(timings.kernels, name, &KernelTiming::name);
  return timing == timings.kernels.end() ? nullptr : &*timing;
}

void report_goal(const KernelTimings& timings, const BenchShape& shape, BenchOutput& output) {
  const auto median_of = [&](const std::string& name) {
    return spread_of(find(timings, name)->seconds).median;
  };
  std::string bound = kSumOfRows;
  if (shape.experts > cuda::kMostOwnFp32Sites) {
    if (find(timings, kCublasFp32Products) == nullptr) return;
    const bool default_is_faster = median_of(kCublasFp32Default) < median_of(kCublasFp32Products);
    bound = default_is_faster ? kCublasFp32Default : kCublasFp32Products;
  }
  output.line(goal_line(to_string(shape), fmt::format("{} / {}", timings.fp32_costs, bound),
                        median_of(timings.fp32_costs) / median_of(bound), kMostTimesTheBound));
}

}  // namespace

void bench_kernels(const BenchJobConfig& config, const DeviceChoice& device, BenchOutput& output) {
  if (device.backend != "cuda") throw UsageError("bench kernels: needs a GPU (--backend cuda)");
  std::vector<BenchShape> shapes = config.shapes;
  if (shapes.empty()) shapes = {{14336, 4096, 16}, {14336, 4096, 64}};
  bool cublas_is_there = false;
  for (const BenchShape& shape : shapes) {
    const KernelTimings timings =
        time_cuda_kernels(device.device, shape.rows, shape.columns, shape.experts, config.repeats);
    for (const KernelTiming& timing : timings.kernels) {
      const Spread seconds = spread_of(timing.seconds);
      nlohmann::json line = {
          {"schema_version", 1},
          {"type", "kernel"},
          {"shape", to_string(shape)},
          {"kernel", timing.name},
          {"seconds", to_json(seconds)},
          {"gigabytes_per_second", 1e-9 * static_cast<double>(timing.bytes) / seconds.median}};
      if (timing.operations > 0) {
        line["gigaflops"] = 1e-9 * static_cast<double>(timing.operations) / seconds.median;
      }
      output.line(line);
    }
    report_goal(timings, shape, output);
    cublas_is_there = find(timings, kCublasFp32Products) != nullptr;
  }
  if (!cublas_is_there) {
    output.line({{"schema_version", 1},
                 {"type", "not measured"},
                 {"what", "cuBLAS, and what is compared with it"},
                 {"reason", describe_cublas()}});
  }
}

}  // namespace moefy
