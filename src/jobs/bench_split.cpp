#include "bench_split.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "bench_rows.hpp"
#include "machine.hpp"
#include "moefy/jobs/factories.hpp"
#include "moefy/split/splitter.hpp"

namespace moefy {

namespace {

using nlohmann::json;

LayerInfo layer_in_memory(const BenchShape& shape) {
  LayerInfo layer;
  layer.name = "bench";
  layer.num_neurons = static_cast<std::int64_t>(shape.rows);
  layer.hidden_size = static_cast<std::int64_t>(shape.columns);
  layer.activation = "relu";
  FfnTensor up;
  up.tensor = "bench.up";
  layer.tensors = {up};
  return layer;
}

json phases_of(const LayerResult& result) {
  json phases = json::object();
  for (const auto& [name, seconds] : result.seconds) phases[name] = seconds;
  return phases;
}

}  // namespace

void bench_split(const BenchJobConfig& config, Backend& backend, JobContext& context,
                 BenchOutput& output) {
  const std::unique_ptr<Splitter> splitter = make_splitter("kmeans");
  SplitWorkspace workspace(backend);
  for (const BenchShape& shape : config.shapes.empty() ? model_shapes() : config.shapes) {
    const Matrix<float> rows = uneven_blobs(shape);
    const LayerInfo layer = layer_in_memory(shape);
    SplitConfig split;
    split.experts = static_cast<std::int64_t>(shape.experts);
    split.normalize = "none";
    const RowSource source = [&](FfnRole, MatrixView<float> out) {
      std::ranges::copy(rows.values(), out.values().begin());
    };
    LayerResult result;
    std::vector<double> seconds;
    context.comm.barrier();
    for (int run = -1; run < config.repeats; ++run) {  // the first one warms up
      const double took = timed([&] {
        result = splitter->split({layer, split, source, nullptr, context.stop}, workspace);
      });
      if (run >= 0) seconds.push_back(took);
    }
    json line = {{"schema_version", 1},
                 {"type", "split"},
                 {"shape", fmt::format("{}x{}/{}", shape.rows, shape.columns, shape.experts)},
                 {"seconds", to_json(spread_over_ranks(context.comm, seconds))},
                 {"phases", phases_of(result)},
                 {"inertia", result.inertia},
                 {"inertia_over_random", result.inertia / result.inertia_random},
                 {"duality_gap", result.duality_gap},
                 {"iterations", result.iterations},
                 {"stop_reason", to_string(result.stop_reason)},
                 {"peak_memory", peak_memory()}};
    if (config.check) {
      const std::unique_ptr<Backend> reference = make_backend("reference", context.threads);
      SplitWorkspace slow(*reference);
      const LayerResult expected =
          splitter->split({layer, split, source, nullptr, context.stop}, slow);
      line["reference_inertia"] = expected.inertia;
      line["inertia_over_reference"] = result.inertia / expected.inertia;
    }
    output.line(line);
  }
}

}  // namespace moefy
