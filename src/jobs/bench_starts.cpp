#include "bench_starts.hpp"

#include <nlohmann/json.hpp>

#include "bench_rows.hpp"
#include "moefy/balance/balanced_kmeans.hpp"

namespace moefy {

namespace {

using nlohmann::json;

bool is_available(StartMethod start, const Backend& backend) {
  if (start != StartMethod::faiss_gpu) return true;
  return faiss_gpu_obstacle().empty() && backend.device().has_value();
}

double seconds_of_start(const BalancedKMeansResult& result) {
  for (const auto& [phase, seconds] : result.seconds)
    if (phase == "start") return seconds;
  return 0;
}

/// Q of the first exact E-step, straight from the start's centroids.
double inertia_of_start(BalancedKMeans& clustering, const Matrix<float>& rows,
                        const Capacities& capacities, BalancedKMeansConfig config) {
  config.schedule.loose_iterations = false;
  config.max_iterations = 1;
  return clustering.run(rows.view(), capacities, config, 0).inertia_initial;
}

}  // namespace

void bench_starts(const BenchJobConfig& config, Backend& backend, JobContext& context,
                  BenchOutput& output) {
  BalancedKMeans clustering(backend);
  for (const BenchShape& shape : config.shapes.empty() ? model_shapes() : config.shapes) {
    const Matrix<float> rows = uneven_blobs(shape);
    const Capacities capacities = Capacities::balanced(shape.rows, shape.experts);
    for (const std::string& name : start_names()) {
      BalancedKMeansConfig kmeans;
      kmeans.start = start_method(name);
      if (!is_available(kmeans.start, backend)) continue;
      BalancedKMeansResult result;
      std::vector<double> start_seconds;
      std::vector<double> seconds;
      context.comm.barrier();
      for (int run = -1; run < config.repeats; ++run) {  // the first one warms up
        const double took = timed([&] {
          result = clustering.run(rows.view(), capacities, kmeans, 0, nullptr, context.stop);
        });
        if (run < 0) continue;
        seconds.push_back(took);
        start_seconds.push_back(seconds_of_start(result));
      }
      output.line({{"schema_version", 1},
                   {"type", "start"},
                   {"shape", to_string(shape)},
                   {"init", name},
                   {"start_seconds", to_json(spread_over_ranks(context.comm, start_seconds))},
                   {"seconds", to_json(spread_over_ranks(context.comm, seconds))},
                   {"start_inertia", inertia_of_start(clustering, rows, capacities, kmeans)},
                   {"inertia", result.inertia},
                   {"iterations", result.trace.size()}});
    }
  }
}

}  // namespace moefy
