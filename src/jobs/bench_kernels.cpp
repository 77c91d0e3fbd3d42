#include "bench_kernels.hpp"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "moefy/backend/kernel_timings.hpp"
#include "moefy/core/error.hpp"

namespace moefy {

void bench_kernels(const BenchJobConfig& config, const DeviceChoice& device, BenchOutput& output) {
  if (device.backend != "cuda") throw UsageError("bench kernels: needs a GPU (--backend cuda)");
  std::vector<BenchShape> shapes = config.shapes;
  if (shapes.empty()) shapes = {{14336, 4096, 16}, {14336, 4096, 64}};
  for (const BenchShape& shape : shapes) {
    for (const KernelTiming& timing : time_cuda_kernels(device.device, shape.rows, shape.columns,
                                                        shape.experts, config.repeats)) {
      const Spread seconds = spread_of(timing.seconds);
      nlohmann::json line = {
          {"schema_version", 1},
          {"type", "kernel"},
          {"shape", fmt::format("{}x{}/{}", shape.rows, shape.columns, shape.experts)},
          {"kernel", timing.name},
          {"seconds", to_json(seconds)},
          {"gigabytes_per_second", 1e-9 * static_cast<double>(timing.bytes) / seconds.median}};
      if (timing.operations > 0) {
        line["gigaflops"] = 1e-9 * static_cast<double>(timing.operations) / seconds.median;
      }
      output.line(line);
    }
  }
}

}  // namespace moefy
