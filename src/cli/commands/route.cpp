#include "moefy/jobs/route.hpp"

#include <algorithm>

#include "../device_options.hpp"
#include "../option_table.hpp"
#include "moefy/jobs/factories.hpp"

namespace moefy {

CommandSpec route_command() {
  CommandSpec command;
  command.name = "route";
  command.positional = "MODEL MAP.h5 --router NAME";
  command.max_positional = 2;
  command.summary = "fit the routers of a map anew, in its place, or measure them";
  command.example = "moefy route MODEL map.h5 --router ridge --recordings rec.h5 --evaluate";
  command.options = {
      {"router", "NAME", "how experts are scored", "", Shown::help, router_names()},
      {"recordings", "REC.h5", "of `moefy record`", "", Shown::help},
      {"evaluate", "", "measure the routers on the recordings, beside oracle and random", "",
       Shown::help},
      {"top-k", "K", "experts a token is sent to (0: the map's)", "0", Shown::help},
      {"output", "MAP.h5", "another place for the result", "", Shown::help, {}, 'o'},
      {"layers", "LIST", "only these: 0-3,7 or encoder.0-5 (default: all of the map)", "",
       Shown::help_all},
      {"target",
       "NAME",
       "ridge: output (norms), log-output, score (sum of magnitudes), energy (squared norms), topk "
       "(0/1: the best --top-k), standardized (norms by expert); mlp-topk: topk, softmax (default: "
       "the first)",
       "",
       Shown::help_all,
       {"output", "log-output", "score", "energy", "topk", "standardized", "softmax"}},
      {"similarity",
       "NAME",
       "router centroid: euclidean is for --evaluate alone, no host computes it",
       "cosine",
       Shown::help_all,
       {"cosine", "euclidean"}},
      {"ridge", "X", "router ridge: strength, relative to the mean diagonal", "1", Shown::help_all},
      {"selection-bias", "",
       "router ridge: fit an intercept too; hosts with sigmoid gates carry it", "",
       Shown::help_all},
      {"score",
       "NAME",
       "router mlp-topk: an expert's worth to a token, of its neurons' hidden values",
       "l2",
       Shown::help_all,
       {"l2", "l1", "plain", "positive"}},
      {"epochs", "N", "routers mlp (0: 30) and mlp-topk (0: 100)", "0", Shown::help_all},
      {"max-tokens", "N", "of the recordings, from their beginning", "200000", Shown::help_all},
      {"seed", "N", "of all random choices", "0", Shown::help},
  };
  const std::vector<OptionSpec> device = device_options();
  command.options.insert(command.options.end(), device.begin(), device.end());
  command.prepare = [](OptionValues& values) -> CommandRun {
    RouteJobConfig config;
    config.model = values.positional(0);
    config.map = values.positional(1);
    config.output = values.text("output");
    config.router = values.text("router");
    config.recordings = values.text("recordings");
    config.evaluate = values.flag("evaluate");
    config.layers = values.text("layers");
    config.max_tokens = values.integer("max-tokens");
    read_device_options(values, config);
    config.fitting.target = values.text("target");
    config.fitting.similarity = values.text("similarity");
    config.fitting.ridge = values.real("ridge");
    config.fitting.selection_bias = values.flag("selection-bias");
    config.fitting.score = values.text("score");
    config.fitting.top_k = values.integer("top-k");
    config.fitting.epochs =
        static_cast<int>(std::clamp<std::int64_t>(values.integer("epochs"), -1, 1 << 20));
    const std::int64_t seed = values.integer("seed");
    if (seed < 0) values.add_problem("--seed must not be negative");
    config.fitting.seed = static_cast<std::uint64_t>(seed);
    values.add_problems(validate(config));
    return [config](JobContext& context) { return run_route(config, context); };
  };
  return command;
}

}  // namespace moefy
