#include "moefy/jobs/inspect.hpp"

#include "../option_table.hpp"
#include "moefy/jobs/diff.hpp"

namespace moefy {

CommandSpec inspect_command() {
  CommandSpec command;
  command.name = "inspect";
  command.positional = "MAP.h5|MODEL|OUT";
  command.summary = "tables, checks and a report of a map, a model or a converted checkpoint";
  command.example = "moefy inspect map.h5 --html report.html";
  command.options = {
      {"verify", "", "recompute inertia and duality gap from --model; exit 1 if they differ", "",
       Shown::help},
      {"model", "MODEL", "the dense model for --verify", "", Shown::help},
      {"html", "FILE", "write one self-contained page with plots", "", Shown::help},
      {"export",
       "FORMAT",
       "write the map's arrays to -o",
       "",
       Shown::help,
       {"json", "safetensors"}},
      {"output", "FILE", "where --export writes", "", Shown::help, {}, 'o'},
  };
  command.prepare = [](OptionValues& values) -> CommandRun {
    InspectJobConfig config;
    config.subject = values.positional(0);
    config.verify = values.flag("verify");
    config.model = values.text("model");
    config.html = values.text("html");
    config.export_format = values.text("export");
    config.export_file = values.text("output");
    values.add_problems(validate(config));
    return [config](JobContext& context) { return run_inspect(config, context); };
  };
  return command;
}

CommandSpec diff_command() {
  CommandSpec command;
  command.name = "diff";
  command.positional = "A.h5 B.h5";
  command.max_positional = 2;
  command.summary = "moved neurons, matched experts, mutual information; exit 1 if maps differ";
  command.example = "moefy diff before.h5 after.h5";
  command.prepare = [](OptionValues& values) -> CommandRun {
    DiffJobConfig config;
    config.first = values.positional(0);
    config.second = values.positional(1);
    if (config.second.empty()) values.add_problem("diff needs two maps: A.h5 B.h5");
    return [config](JobContext& context) { return run_diff(config, context); };
  };
  return command;
}

}  // namespace moefy
