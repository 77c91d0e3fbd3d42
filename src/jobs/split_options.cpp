#include <algorithm>
#include <nlohmann/json.hpp>

#include "device_choice.hpp"
#include "moefy/core/text.hpp"
#include "moefy/jobs/factories.hpp"
#include "moefy/jobs/split.hpp"
#include "shard_choice.hpp"

namespace moefy {

namespace {

/// Methods and options that look at recordings need them.
void check_recording_options(const SplitJobConfig& config, std::vector<std::string>& problems) {
  const std::vector<std::string> known = method_names();
  const bool valid = std::ranges::find(known, config.method) != known.end();
  if (!valid) return;
  const bool needed = make_splitter(config.method)->needs(config.split) != RecordingNeed::none;
  if (needed && config.recordings.empty())
    problems.push_back("--method " + config.method +
                       " needs --recordings REC.h5, which `moefy record` makes");
  if (config.split.order == "activity" && config.recordings.empty())
    problems.push_back("--order activity needs --recordings REC.h5, which `moefy record` makes");
  if (config.method == "routed" && config.top_k < 1)
    problems.push_back("--method routed needs --top-k K, the experts a token is sent to");
  const bool is_start_used = !needed && config.method != "prune";
  if (!is_start_used && !config.init_from.empty())
    problems.push_back("--init-from is for --method kmeans");
}

/// Lists that may share or omit neurons, and what they cannot be combined with.
void check_sharing_options(const SplitJobConfig& config, std::vector<std::string>& problems) {
  const SplitConfig& split = config.split;
  const bool shares = split.sharing != "none";
  const bool prunes = config.method == "prune";
  if (shares && config.method != "gradient")
    problems.push_back("--sharing " + split.sharing + " is for --method gradient");
  if (split.sharing == "inner" && split.shared > 0)
    problems.push_back("--sharing inner has no always-on experts; --sharing inter has");
  if (split.sharing == "inter" && split.shared < 1)
    problems.push_back("--sharing inter needs --shared S, the experts of neurons that many want");
  if (split.criterion == "random" && !prunes)
    problems.push_back("--criterion random is for --method prune");
  if ((shares || prunes) && split.order != "id")
    problems.push_back("--order " + split.order + ": these lists have an order of their own");
  if (prunes && (split.experts != 1 || split.shared != 0 || split.sizes != "equal"))
    problems.push_back("--method prune makes one expert of --keep X of the neurons");
  if (prunes && (!(split.keep > 0) || split.keep > 1))
    problems.push_back("--keep must be above 0 and at most 1");
  if (!prunes && split.keep != 1) problems.push_back("--keep is for --method prune");
}

std::string quoted(const std::string& text) { return "'" + text + "'"; }

}  // namespace

std::string start_obstacle(const SplitJobConfig& config) {
  if (config.split.kmeans.start != StartMethod::faiss_gpu) return {};
  if (config.backend != "cpu" && config.backend != "reference") return {};
  return "--init faiss-gpu needs --backend cuda, not " + quoted(config.backend);
}

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
  check_recording_options(config, problems);
  check_name("--sharing", split.sharing, {"none", "inner", "inter"});
  check_sharing_options(config, problems);
  check_name("--weights", split.weights, {"auto", "gate", "up", "down", "concat"});
  check_name("--normalize", split.normalize, {"l2", "none"});
  check_name("--order", split.order, {"id", "norm", "activity"});
  check_name("--coactivation", split.coactivation, {"count", "clamped", "product"});
  check_name("--assign", split.assign, {"exact", "greedy"});
  check_name("--criterion", split.criterion, {"max", "min", "random"});
  check_name("--score-norm", split.score_norm, {"none", "sum", "rank", "zscore"});
  check_range("--coact-block", split.coact_block, 0);
  check_range("--max-tokens", config.max_tokens, 1);
  if (!(split.active_fraction > 0) || split.active_fraction > 1)
    problems.push_back("--active-fraction must be above 0 and at most 1");
  for (std::string& problem : device_option_problems(config.backend, config.device))
    problems.push_back(std::move(problem));
  const bool starts_on_gpu = split.kmeans.start == StartMethod::faiss_gpu;
  if (starts_on_gpu && !faiss_gpu_obstacle().empty()) problems.push_back(faiss_gpu_obstacle());
  if (const std::string obstacle = start_obstacle(config); !obstacle.empty())
    problems.push_back(obstacle);
  check_name("--feed", config.feed, {"auto", "coordinator", "local"});
  check_range("--shard-rows", config.shard_rows, 0);
  const std::string obstacle = sharding_obstacle(config);
  if (config.shard_rows > 1 && !obstacle.empty())
    problems.push_back("--shard-rows " + std::to_string(config.shard_rows) + ": " + obstacle);
  return problems;
}

std::string result_options_json(const SplitJobConfig& config) {
  const SplitConfig& split = config.split;
  const StartSchedule& schedule = split.kmeans.schedule;
  nlohmann::json options = {
      {"backend", config.backend},
      {"experts", split.experts},
      {"init", to_string(split.kmeans.start)},
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
  if (config.method == "prune") {
    options["criterion"] = split.criterion;
    options["keep"] = split.keep;
  }
  if (config.recordings.empty()) return options.dump();
  options["recordings"] = config.recordings_identity;
  options["max-tokens"] = config.max_tokens;
  if (config.method == "coactivation") {
    options["coactivation"] = split.coactivation;
    if (split.coactivation == "clamped") options["coact-block"] = split.coact_block;
  }
  if (config.method == "coactivation" || config.method == "activation")
    options["active-fraction"] = split.active_fraction;
  if (config.method == "gradient") {
    options["assign"] = split.assign;
    options["criterion"] = split.criterion;
    options["sharing"] = split.sharing;
  }
  if (config.method == "gradient" || config.method == "prune")
    options["score-norm"] = split.score_norm;
  return options.dump();
}

}  // namespace moefy
