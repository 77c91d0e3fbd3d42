#include "moefy/jobs/convert.hpp"

#include "../option_table.hpp"
#include "moefy/jobs/restore.hpp"
#include "moefy/jobs/verify.hpp"

namespace moefy {

namespace {

std::vector<std::string> with_auto(std::vector<std::string> names) {
  names.insert(names.begin(), "auto");
  return names;
}

}  // namespace

CommandSpec convert_command() {
  CommandSpec command;
  command.name = "convert";
  command.positional = "MODEL MAP.h5 -o OUT";
  command.max_positional = 2;
  command.summary = "checkpoint and map into weights that stock software loads";
  command.example = "moefy convert MODEL map.h5 -o OUT --top-k 4";
  command.options = {
      {"output", "OUT", "folder to make", "", Shown::help, {}, 'o'},
      {"host", "NAME", "model class that carries the experts", "auto", Shown::help,
       with_auto(host_names())},
      {"top-k", "K", "routed experts per token (default: the map's, else all)", "", Shown::help},
      {"gate-scale", "SCALE",
       "factor on the routers: auto, robust (--gguf), 2^-m, or 1 (trainable)", "auto",
       Shown::help_all},
      {"score-scale", "SCALE",
       "factor of the routed experts' sum: auto, a number, or calibrated (`moefy calibrate "
       "--score-scale`)",
       "auto", Shown::help_all},
      {"align", "N", "expert width is padded to a multiple of N with zero neurons", "8",
       Shown::help_all},
      {"uneven",
       "NAME",
       "experts of unequal size",
       "pad",
       Shown::help_all,
       {"pad", "ragged", "error"}},
      {"layout",
       "NAME",
       "a tensor per expert, or one per layer",
       "classic",
       Shown::help_all,
       {"classic", "fused"}},
      {"use-refit", "", "down projections that `moefy calibrate` fitted", "", Shown::help},
      {"gguf", "FILE", "also one file for llama.cpp (hosts dense, mixtral, qwen2-moe, glm4-moe)",
       "", Shown::help},
      {"gguf-type",
       "NAME",
       "of its matrices (auto: as in OUT)",
       "auto",
       Shown::help_all,
       {"auto", "f32", "f16", "bf16"}},
      {"shard-size", "SIZE", "tensor data per file", "5G", Shown::help_all},
  };
  command.prepare = [](OptionValues& values) -> CommandRun {
    ConvertJobConfig config;
    config.model = values.positional(0);
    config.map = values.positional(1);
    config.output = values.text("output");
    config.convert.host = values.text("host");
    if (values.given("top-k")) config.convert.top_k = values.integer("top-k");
    // llama.cpp confuses experts whose scores are as near to each other as stock classes can tell.
    const bool robust = !values.text("gguf").empty() && !values.given("gate-scale");
    config.convert.gate_scale = robust ? "robust" : values.text("gate-scale");
    config.convert.score_scale = values.text("score-scale");
    config.convert.align = values.integer("align");
    config.convert.uneven = values.text("uneven");
    config.convert.layout = values.text("layout");
    config.convert.use_refit = values.flag("use-refit");
    config.convert.shard_size = values.bytes("shard-size");
    config.gguf = values.text("gguf");
    config.gguf_type = values.text("gguf-type");
    values.add_problems(validate(config));
    return [config](JobContext& context) { return run_convert(config, context); };
  };
  return command;
}

CommandSpec verify_command() {
  CommandSpec command;
  command.name = "verify";
  command.positional = "MODEL OUT";
  command.max_positional = 2;
  command.summary = "prove that OUT is MODEL rearranged; exit 1 if it is not";
  command.example = "moefy verify MODEL OUT";
  command.options = {
      {"bound", "", "print how far routed weights may move each layer's output", "", Shown::help}};
  command.prepare = [](OptionValues& values) -> CommandRun {
    VerifyJobConfig config;
    config.model = values.positional(0);
    config.output = values.positional(1);
    config.bound = values.flag("bound");
    values.add_problems(validate(config));
    return [config](JobContext& context) { return run_verify(config, context); };
  };
  return command;
}

CommandSpec restore_command() {
  CommandSpec command;
  command.name = "restore";
  command.positional = "OUT -o MODEL";
  command.summary = "the dense checkpoint back, bit for bit";
  command.example = "moefy restore OUT -o MODEL2";
  command.options = {{"output", "MODEL", "folder to make", "", Shown::help, {}, 'o'}};
  command.prepare = [](OptionValues& values) -> CommandRun {
    RestoreJobConfig config;
    config.converted = values.positional(0);
    config.output = values.text("output");
    values.add_problems(validate(config));
    return [config](JobContext& context) { return run_restore(config, context); };
  };
  return command;
}

}  // namespace moefy
