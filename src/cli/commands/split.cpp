#include "moefy/jobs/split.hpp"

#include <algorithm>

#include "../device_options.hpp"
#include "../option_table.hpp"
#include "moefy/jobs/factories.hpp"
#include "moefy/jobs/plan.hpp"

namespace moefy {

namespace {

/// Options that say what the map will be; `plan` has them, too.
std::vector<OptionSpec> result_options() {
  std::vector<OptionSpec> options = {
      {"experts", "E", "routed experts per layer", "", Shown::help},
      {"shared", "S", "always-on experts, as wide as a routed one", "0", Shown::help},
      {"method", "NAME", "how neurons are grouped", "kmeans", Shown::help, method_names()},
      {"weights",
       "NAME",
       "matrix that is clustered",
       "auto",
       Shown::help,
       {"auto", "gate", "up", "down", "concat"}},
      {"normalize", "NAME", "rows before clustering", "l2", Shown::help, {"l2", "none"}},
      {"layers", "LIST", "only these: 0-3,7 or encoder.0-5 (default: all)", "", Shown::help},
      {"sizes", "SIZES", "experts' sizes: equal, N, N,N,… or MIN..MAX", "equal", Shown::help_all},
      {"order",
       "NAME",
       "neurons inside an expert",
       "id",
       Shown::help_all,
       {"id", "norm", "activity"}},
      {"recordings", "REC.h5", "of `moefy record`, for methods that look at activations", "",
       Shown::help},
      {"max-tokens", "N", "of the recordings, from their beginning", "200000", Shown::help_all},
      {"coactivation",
       "NAME",
       "method coactivation: what counts as active together",
       "count",
       Shown::help_all,
       {"count", "clamped", "product"}},
      {"coact-block", "N", "… clamped: tokens a block (0: all in one)", "8", Shown::help_all},
      {"active-fraction", "X", "methods coactivation, activation: marked neurons of a token", "0.1",
       Shown::help_all},
      {"assign", "NAME", "method gradient", "exact", Shown::help_all, {"exact", "greedy"}},
      {"criterion",
       "NAME",
       "methods gradient, prune: neurons an expert takes, the most or least important",
       "max",
       Shown::help_all,
       {"max", "min", "random"}},
      {"sharing",
       "NAME",
       "method gradient: neurons in several experts",
       "none",
       Shown::help_all,
       {"none", "inner", "inter"}},
      {"keep", "X", "method prune: share of the neurons that stay, in one expert", "1",
       Shown::help_all},
      {"score-norm",
       "NAME",
       "methods gradient, prune: scale of a text cluster's scores",
       "sum",
       Shown::help_all,
       {"none", "sum", "rank", "zscore"}},
      {"top-k", "K", "kept in the map as convert's default (0: none)", "0", Shown::help_all},
      {"init", "NAME", "starting centroids (faiss-gpu: by FAISS' own index, --backend cuda)",
       "faiss", Shown::help_all, start_names()},
      {"init-from", "OLD.h5", "start from an older map (re-clustering)", "", Shown::help_all},
      {"nredo", "R", "restarts; the lowest inertia wins", "1", Shown::help_all},
      {"max-iterations", "N", "E-steps at the most", "300", Shown::help_all},
      {"seed", "N", "of all random choices", "0", Shown::help},
      {"shard-rows", "N", "ranks that share the rows of a layer (auto: 1 if that will do)", "auto",
       Shown::help_all},
      {"start-iterations", "N", "free iterations of the FAISS start", "3", Shown::file_only},
      {"start-subsample", "BOOL", "start on a quarter of the rows", "true", Shown::file_only},
      {"start-loose", "BOOL", "nearly balanced int8 iterations before the exact ones", "true",
       Shown::file_only},
  };
  const std::vector<OptionSpec> device = device_options();
  options.insert(std::ranges::find(options, "shard-rows", &OptionSpec::name), device.begin(),
                 device.end());
  return options;
}

bool boolean(OptionValues& values, const std::string& name) {
  const std::string& text = values.text(name);
  if (text != "true" && text != "false")
    values.add_problem(name + " '" + text + "': expected true or false");
  return text == "true";
}

SplitJobConfig read_config(OptionValues& values) {
  SplitJobConfig config;
  config.model = values.positional(0);
  config.method = values.text("method");
  config.layers = values.text("layers");
  config.top_k = values.integer("top-k");
  config.init_from = values.text("init-from");
  read_device_options(values, config);
  // 0 stands for auto, which a number may not be.
  if (values.text("shard-rows") != "auto") {
    config.shard_rows = values.integer("shard-rows");
    if (config.shard_rows < 1) values.add_problem("--shard-rows must be auto or at least 1");
  }
  config.preset = values.text("preset");
  if (!values.given("experts") && config.method != "prune")
    values.add_problem("--experts E is missing");
  SplitConfig& split = config.split;
  split.experts = values.given("experts") ? values.integer("experts") : 1;
  split.shared = values.integer("shared");
  split.weights = values.text("weights");
  split.normalize = values.text("normalize");
  split.sizes = values.text("sizes");
  split.order = values.text("order");
  config.recordings = values.text("recordings");
  config.max_tokens = values.integer("max-tokens");
  split.recorded = !config.recordings.empty();
  split.neuron_pairs =
      split.recorded && (config.method == "activation" || config.method == "coactivation");
  split.top_k = config.top_k;
  split.coactivation = values.text("coactivation");
  split.coact_block = values.integer("coact-block");
  split.active_fraction = values.real("active-fraction");
  split.assign = values.text("assign");
  split.criterion = values.text("criterion");
  split.sharing = values.text("sharing");
  split.keep = values.real("keep");
  split.score_norm = values.text("score-norm");
  // An unknown name is a problem already.
  split.kmeans.start = find_start_method(values.text("init")).value_or(StartMethod::faiss);
  split.kmeans.num_redo =
      static_cast<int>(std::clamp<std::int64_t>(values.integer("nredo"), 0, 1 << 20));
  split.kmeans.max_iterations =
      static_cast<int>(std::clamp<std::int64_t>(values.integer("max-iterations"), 0, 1 << 30));
  const std::int64_t seed = values.integer("seed");
  if (seed < 0) values.add_problem("--seed must not be negative");
  split.kmeans.seed = static_cast<std::uint64_t>(seed);
  split.kmeans.schedule.faiss_iterations =
      static_cast<int>(std::clamp<std::int64_t>(values.integer("start-iterations"), 0, 1000));
  split.kmeans.schedule.subsample = boolean(values, "start-subsample");
  split.kmeans.schedule.loose_iterations = boolean(values, "start-loose");
  return config;
}

}  // namespace

CommandSpec split_command() {
  CommandSpec command;
  command.name = "split";
  command.positional = "MODEL -o MAP.h5 --experts E";
  command.summary = "cluster the neurons of every FFN layer into equally large experts";
  command.example = "mpirun -np 2 moefy split MODEL -o map.h5 --experts 16";
  command.options = {{"output", "MAP.h5", "the expert map", "", Shown::help, {}, 'o'}};
  for (OptionSpec& spec : result_options()) command.options.push_back(std::move(spec));
  command.options.insert(
      command.options.end(),
      {{"feed",
        "NAME",
        "who reads the layers",
        "auto",
        Shown::help_all,
        {"auto", "coordinator", "local"}},
       {"wall-time", "TIME", "stop in time (exit 75), to be resumed", "", Shown::help_all},
       {"reproducible", "", "leave out /run: equal runs give equal files", "", Shown::help_all},
       {"dry-run", "", "print the plan, touch nothing", "", Shown::help}});
  command.prepare = [](OptionValues& values) -> CommandRun {
    SplitJobConfig config = read_config(values);
    config.output = values.text("output");
    config.feed = values.text("feed");
    config.reproducible = values.flag("reproducible");
    config.dry_run = values.flag("dry-run");
    const std::vector<std::string> run_options = {"feed",       "share-devices", "device-memory",
                                                  "shard-rows", "threads",       "timeout",
                                                  "wall-time",  "no-verify",     "log"};
    config.run_options = values.to_json(run_options);
    values.add_problems(validate(config));
    return [config](JobContext& context) { return run_split(config, context); };
  };
  return command;
}

CommandSpec plan_command() {
  CommandSpec command;
  command.name = "plan";
  command.positional = "MODEL --experts E";
  command.summary = "layers to ranks, memory, disk and time of a split; touches nothing";
  command.example = "moefy plan MODEL --experts 16 --ranks 8";
  command.options = result_options();
  command.options.push_back({"ranks", "N",
                             "ranks to plan for (default: a rank a GPU, else those of this launch)",
                             "", Shown::help});
  command.options.push_back(
      {"gpus", "N", "GPUs of all hosts: which ranks use which, and memory", "", Shown::help});
  command.options.push_back({"output",
                             "MAP.h5",
                             "where the map would go, to check the disk",
                             "",
                             Shown::help_all,
                             {},
                             'o'});
  command.prepare = [](OptionValues& values) -> CommandRun {
    PlanJobConfig config;
    config.split = read_config(values);
    config.split.output = values.text("output");
    config.split.dry_run = true;
    config.ranks = values.given("ranks") ? values.integer("ranks") : 0;
    if (values.given("ranks") && config.ranks < 1) values.add_problem("--ranks must be at least 1");
    config.gpus = values.given("gpus") ? values.integer("gpus") : 0;
    if (values.given("gpus") && config.gpus < 1) values.add_problem("--gpus must be at least 1");
    if (config.gpus > 0 && config.ranks > config.gpus && !config.split.share_devices)
      values.add_problem("--ranks " + std::to_string(config.ranks) + ", --gpus " +
                         std::to_string(config.gpus) +
                         ": more ranks than GPUs need --share-devices");
    values.add_problems(validate(config.split));
    return [config](JobContext& context) mutable {
      if (config.ranks == 0) config.ranks = config.gpus > 0 ? config.gpus : context.comm.size();
      return run_plan(config, context);
    };
  };
  return command;
}

}  // namespace moefy
