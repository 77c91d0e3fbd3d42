#include "bench_split.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "bench_rows.hpp"
#include "machine.hpp"
#include "moefy/backend/kernel_timings.hpp"
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

/// A layer lies in memory for a backend as it does for a split: on a device as it came from the
/// file, else on the host.
class LayerInMemory {
 public:
  LayerInMemory(Backend& backend, const Matrix<float>& rows)
      : rows_(rows), on_device_(backend.make_raw_bytes()) {
    if (!on_device_) return;
    std::span<const std::byte> rest = std::as_bytes(rows_.values());
    on_device_->resize(rest.size());
    on_device_->receive(0, rest.size(), [&](std::span<std::byte> block) {
      std::ranges::copy(rest.first(block.size()), block.begin());
      rest = rest.subspan(block.size());
    });
    on_device_->finish();
  }
  RowSource source() const {
    return [this](FfnRole, const RowsTarget& out) {
      if (on_device_) {
        on_device_->widen(0, {DType::f32, rows_.rows(), rows_.cols(), false}, out);
      } else {
        std::ranges::copy(rows_.values(), MatrixView<float>(out).values().begin());
      }
    };
  }

 private:
  const Matrix<float>& rows_;
  std::unique_ptr<RawBytes> on_device_;
};

/// A whole layer on a GPU takes at most so many times a copy of its rows over the bus.
constexpr double kMostCopies = 40;

const std::vector<BenchShape>& shapes_to_split(const BenchJobConfig& config,
                                               const Backend& backend) {
  static const std::vector<BenchShape> whole_layers = {{14336, 4096, 16}, {14336, 4096, 64}};
  if (!config.shapes.empty()) return config.shapes;
  return backend.device() ? whole_layers : model_shapes();
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
  SplitWorkspace workspace(backend, backend.make_rows());
  for (const BenchShape& shape : shapes_to_split(config, backend)) {
    const Matrix<float> rows = uneven_blobs(shape);
    const LayerInMemory in_memory(backend, rows);
    const LayerInfo layer = layer_in_memory(shape);
    SplitConfig split;
    split.experts = static_cast<std::int64_t>(shape.experts);
    split.normalize = "none";
    const RowSource source = in_memory.source();
    LayerResult result;
    std::vector<double> seconds;
    context.comm.barrier();
    for (int run = -1; run < config.repeats; ++run) {  // the first one warms up
      const double took = timed([&] {
        result = splitter->split({layer, split, source, nullptr, context.stop}, workspace);
      });
      if (run >= 0) seconds.push_back(took);
    }
    const Spread spread = spread_over_ranks(context.comm, seconds);
    json line = {{"schema_version", 1},
                 {"type", "split"},
                 {"shape", to_string(shape)},
                 {"seconds", to_json(spread)},
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
      const RowSource on_host = [&](FfnRole, MatrixView<float> out) {
        std::ranges::copy(rows.values(), out.values().begin());
      };
      const LayerResult expected =
          splitter->split({layer, split, on_host, nullptr, context.stop}, slow);
      line["reference_inertia"] = expected.inertia;
      line["inertia_over_reference"] = result.inertia / expected.inertia;
    }
    if (!backend.device()) {
      output.line(line);
      continue;
    }
    const Spread copy =
        spread_of(time_copy_to_cuda(*backend.device(), rows.values().size_bytes(), config.repeats));
    line["copy_seconds"] = to_json(copy);
    output.line(line);
    output.line(goal_line(to_string(shape), "whole layer / copy of its rows to the device",
                          spread.median / copy.median, kMostCopies));
  }
}

}  // namespace moefy
