#include "option_table.hpp"

namespace moefy {

std::vector<OptionSpec> common_options() {
  return {
      {"threads", "N", "threads of this rank (default: CPUs it may use / ranks sharing them)", "",
       Shown::help},
      {"json", "", "JSON lines on stdout; text and progress on stderr", "", Shown::help},
      {"quiet", "", "no progress, only warnings and errors", "", Shown::help},
      {"force", "", "replace what is in the way, start anew", "", Shown::help},
      {"no-verify", "", "leave out the checks of what was made", "", Shown::help_all},
      {"architecture", "FILE", "JSON of a model family, beside the built-in ones", "",
       Shown::help_all},
      {"config", "FILE", "JSON file of options; the command line wins", "", Shown::help_all},
      {"dump-config", "", "print the resolved options as JSON and stop", "", Shown::help_all},
      {"preset", "NAME", "named set of options", "default", Shown::help_all},
      {"log", "FILE", "log of every rank: FILE, FILE.1, …", "", Shown::help_all},
      {"log-level",
       "LEVEL",
       "screen",
       "info",
       Shown::help_all,
       {"debug", "info", "warning", "error"}},
      {"timeout", "TIME", "silence of a peer after which the job ends", "10m", Shown::help_all},
      {"help", "", "this page", "", Shown::help_all, {}, 'h'},
      {"help-all", "", "all options", "", Shown::help_all},
  };
}

std::vector<CommandSpec> all_commands() {
  return {split_command(),   plan_command(),   route_command(),
          convert_command(), verify_command(), restore_command(),
          inspect_command(), diff_command(),   bench_command()};
}

}  // namespace moefy
