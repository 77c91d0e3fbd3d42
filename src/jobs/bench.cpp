#include "moefy/jobs/bench.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <ostream>

#include "bench_convert.hpp"
#include "bench_kernels.hpp"
#include "bench_link.hpp"
#include "bench_output.hpp"
#include "bench_split.hpp"
#include "bench_starts.hpp"
#include "device_choice.hpp"
#include "machine.hpp"
#include "moefy/backend/cublas.hpp"
#include "moefy/core/text.hpp"
#include "moefy/jobs/bench_assign.hpp"
#include "moefy/jobs/bench_faster.hpp"
#include "moefy/jobs/factories.hpp"
#include "moefy/jobs/version.hpp"

namespace moefy {

namespace {

using nlohmann::json;

std::optional<BenchShape> parse_shape(const std::string& text) {
  const std::size_t cross = text.find('x');
  const std::size_t slash = text.find('/');
  if (cross == std::string::npos || slash == std::string::npos || slash < cross)
    return std::nullopt;
  const auto rows = parse_integer(std::string_view(text).substr(0, cross));
  const auto columns = parse_integer(std::string_view(text).substr(cross + 1, slash - cross - 1));
  const auto experts = parse_integer(std::string_view(text).substr(slash + 1));
  if (!rows || !columns || !experts || *rows < 1 || *columns < 1 || *experts < 1 ||
      *experts > *rows)
    return std::nullopt;
  return BenchShape{static_cast<std::size_t>(*rows), static_cast<std::size_t>(*columns),
                    static_cast<std::size_t>(*experts)};
}

json machine_line(const BenchJobConfig& config, const JobContext& context,
                  const DeviceChoice& device, const std::string& backend) {
  json line = {{"schema_version", 1},          {"type", "machine"},          {"bench", config.what},
               {"moefy", version_line()},      {"cpu", cpu_model()},         {"backend", backend},
               {"ranks", context.comm.size()}, {"threads", context.threads}, {"date", utc_time()}};
  if (device.backend == "cuda") {
    const CudaVersions versions = cuda_versions();
    line["device"] = device.model;
    line["cuda"] = {{"driver_supports", versions.driver}, {"runtime", versions.runtime}};
    line["cublas"] = nullptr;
    if (const auto cublas = find_cublas())
      line["cublas"] = {{"file", cublas->file}, {"version", cublas->version}};
  }
  return line;
}

json seconds_of(double min, double median, double max) { return to_json(Spread{min, median, max}); }

/// What a warm assignment of at most so many rows and sites should take on a GPU, certificate
/// included.
constexpr double kWarmAssignmentSeconds = 0.001;
constexpr std::size_t kRowsOfTheGoal = 14336;
constexpr std::size_t kSitesOfTheGoal = 64;

/// Exact assignments; the columns of a shape are the dimensions its costs come from.
void report_assign(const BenchJobConfig& config, Backend& backend, BenchOutput& output) {
  std::vector<BenchAssignSize> sizes = default_bench_assign_sizes();
  if (!config.shapes.empty()) sizes.clear();
  for (const BenchShape& shape : config.shapes)
    for (const bool skewed : {false, true})
      sizes.push_back({shape.rows, shape.experts, skewed, shape.columns});
  for (const BenchAssignRow& row : bench_assign(backend, sizes, config.repeats, config.check)) {
    const std::string shape = fmt::format("{}x{}", row.size.num_rows, row.size.num_sites);
    json line = {{"schema_version", 1},
                 {"type", "assign"},
                 {"shape", shape},
                 {"skewed", row.size.skewed},
                 {"warm", row.warm},
                 {"seconds", seconds_of(row.seconds_min, row.seconds_median, row.seconds_max)},
                 {"surplus", row.surplus},
                 {"price_passes", row.price_passes},
                 {"auction_rounds", row.auction_rounds},
                 {"auction_bids", row.auction_bids},
                 {"augmentations", row.augmentations},
                 {"cost", row.cost}};
    if (config.check) line["optimal"] = row.optimal;
    output.line(line);
    if (row.warm && backend.device() && row.size.num_rows <= kRowsOfTheGoal &&
        row.size.num_sites <= kSitesOfTheGoal) {
      output.line(goal_line(shape + (row.size.skewed ? " skewed" : ""),
                            "seconds of a warm assignment with its certificate", row.seconds_median,
                            kWarmAssignmentSeconds));
    }
  }
}

/// The published benchmark of Faster MoEfication: 8 layers of uniform rows.
void report_faster(const BenchJobConfig& config, Backend& backend, BenchOutput& output) {
  BenchFasterSize size;
  if (!config.shapes.empty()) {
    size.num_rows = config.shapes.front().rows;
    size.dim = config.shapes.front().columns;
    size.num_sites = config.shapes.front().experts;
  }
  for (const BenchFasterRow& row : bench_faster(backend, size, config.repeats)) {
    json phases = json::object();
    for (const auto& [name, seconds] : row.phases) phases[name] = seconds;
    output.line({{"schema_version", 1},
                 {"type", "faster"},
                 {"layer", row.layer},
                 {"seconds", seconds_of(row.seconds_min, row.seconds_median, row.seconds_max)},
                 {"phases", phases},
                 {"inertia", row.inertia},
                 {"relative_inertia", row.relative_inertia},
                 {"duality_gap", row.duality_gap},
                 {"iterations", row.iterations},
                 {"gigaflops", row.gigaflops},
                 {"peak_memory", peak_memory()}});
  }
}

}  // namespace

std::vector<BenchShape> parse_shapes(const std::string& text, std::vector<std::string>& problems) {
  std::vector<BenchShape> shapes;
  for (const std::string& piece : split_text(text, ',')) {
    if (const auto shape = parse_shape(piece)) {
      shapes.push_back(*shape);
    } else {
      problems.push_back("--sizes '" + piece + "': expected ROWSxCOLUMNS/EXPERTS");
    }
  }
  return shapes;
}

std::string to_string(const BenchShape& shape) {
  return fmt::format("{}x{}/{}", shape.rows, shape.columns, shape.experts);
}

ExitCode run_bench(const BenchJobConfig& config, JobContext& context) {
  const DeviceChoice device =
      choose_device(config.backend, config.device, config.share_devices, context);
  const std::unique_ptr<Backend> backend = make_backend(device, context.threads);
  BenchOutput output(context);
  output.line(machine_line(config, context, device, backend->name()));
  if (config.what == "convert") {
    bench_convert(config, context, output);
  } else if (config.what == "link") {
    bench_link(config, device, *backend, context, output);
  } else if (config.what == "kernels") {
    bench_kernels(config, device, output);
  } else if (config.what == "split") {
    bench_split(config, *backend, context, output);
  } else if (config.what == "starts") {
    bench_starts(config, *backend, context, output);
  } else if (config.what == "assign") {
    report_assign(config, *backend, output);
  } else {
    report_faster(config, *backend, output);
  }
  return ExitCode::done;
}

}  // namespace moefy
