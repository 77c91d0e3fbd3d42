#include <nlohmann/json.hpp>

#include "moefy/core/text.hpp"
#include "moefy/jobs/factories.hpp"
#include "moefy/jobs/split.hpp"

namespace moefy {

namespace {

const char* start_name(StartMethod start) {
  switch (start) {
    case StartMethod::faiss:
      return "faiss";
    case StartMethod::kmeanspp:
      return "kmeans++";
    case StartMethod::random:
      return "random";
  }
  throw InternalError("unknown start method");
}

std::string quoted(const std::string& text) { return "'" + text + "'"; }

}  // namespace

std::vector<std::string> validate(const SplitJobConfig& config) {
  std::vector<std::string> problems;
  const SplitConfig& split = config.split;
  const auto check_name = [&](const char* option, const std::string& value,
                              const std::vector<std::string>& valid) {
    for (const std::string& name : valid)
      if (name == value) return;
    problems.push_back(std::string(option) + " " + quoted(value) + " is unknown" +
                       suggestion(value, valid));
  };
  const auto check_range = [&](const char* option, std::int64_t value, std::int64_t least) {
    if (value >= least) return;
    problems.push_back(std::string(option) + " " + std::to_string(value) + ": at least " +
                       std::to_string(least) + " is needed");
  };
  if (config.model.empty()) problems.push_back("split needs MODEL: a folder or a name");
  if (config.output.empty() && !config.dry_run)
    problems.push_back("split needs -o MAP.h5, the map to make");
  check_range("--experts", split.experts, 1);
  check_range("--shared", split.shared, 0);
  check_range("--top-k", config.top_k, 0);
  check_range("--nredo", split.kmeans.num_redo, 1);
  check_range("--max-iterations", split.kmeans.max_iterations, 1);
  if (split.experts >= 1 && config.top_k > split.experts) {
    problems.push_back("--top-k " + std::to_string(config.top_k) + ": there are only " +
                       std::to_string(split.experts) + " experts");
  }
  check_name("--method", config.method, method_names());
  check_name("--weights", split.weights, {"auto", "gate", "up", "down", "concat"});
  check_name("--normalize", split.normalize, {"l2", "none"});
  check_name("--order", split.order, {"id", "norm"});
  check_name("--backend", config.backend, backend_names());
  check_range("--device", config.device, 0);
  if (config.device > 0 && (config.backend == "cpu" || config.backend == "reference"))
    problems.push_back("--device " + std::to_string(config.device) +
                       " is for --backend cuda, not " + quoted(config.backend));
  check_name("--feed", config.feed, {"auto", "coordinator", "local"});
  return problems;
}

std::string result_options_json(const SplitJobConfig& config) {
  const SplitConfig& split = config.split;
  const StartSchedule& schedule = split.kmeans.schedule;
  nlohmann::json options = {
      {"backend", config.backend},
      {"experts", split.experts},
      {"init", start_name(split.kmeans.start)},
      {"layers", config.layers},
      {"max-iterations", split.kmeans.max_iterations},
      {"method", config.method},
      {"normalize", split.normalize},
      {"nredo", split.kmeans.num_redo},
      {"order", split.order},
      {"preset", config.preset},
      {"seed", split.kmeans.seed},
      {"shared", split.shared},
      {"sizes", split.sizes},
      {"start-iterations", schedule.faiss_iterations},
      {"start-loose", schedule.loose_iterations},
      {"start-subsample", schedule.subsample},
      {"top-k", config.top_k},
      {"weights", split.weights},
  };
  return options.dump();
}

}  // namespace moefy
