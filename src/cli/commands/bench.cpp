#include "moefy/jobs/bench.hpp"

#include <algorithm>
#include <limits>

#include "../option_table.hpp"
#include "moefy/core/text.hpp"
#include "moefy/jobs/factories.hpp"

namespace moefy {

CommandSpec bench_command() {
  CommandSpec command;
  command.name = "bench";
  command.positional = "assign|split|convert|link|faster|starts|kernels";
  command.summary = "timing benchmarks, median of several runs";
  command.example = "moefy bench split --sizes 6144x768/32 --threads 1 --json";
  command.options = {
      {"sizes", "LIST",
       "ROWSxCOLUMNS/EXPERTS,… (convert, link: bytes of the checkpoint, of a piece)", "",
       Shown::help},
      {"repeats", "N", "counted runs", "5", Shown::help},
      {"check", "", "compare with the reference backend", "", Shown::help},
      {"backend", "NAME", "who computes", "auto", Shown::help, backend_names()},
      {"device", "N", "GPU of the first rank of a host; the others take the next", "0",
       Shown::help_all},
      {"share-devices", "", "let several ranks use the same GPU, if there are more ranks than GPUs",
       "", Shown::help_all},
  };
  command.prepare = [](OptionValues& values) -> CommandRun {
    BenchJobConfig config;
    config.what = values.positional(0);
    const std::vector<std::string> known = {"assign", "split",  "convert", "link",
                                            "faster", "starts", "kernels"};
    if (std::find(known.begin(), known.end(), config.what) == known.end())
      values.add_problem("bench '" + config.what + "' is unknown" + suggestion(config.what, known));
    config.check = values.flag("check");
    config.backend = values.text("backend");
    config.device = static_cast<int>(
        std::clamp<std::int64_t>(values.integer("device"), -1, std::numeric_limits<int>::max()));
    config.share_devices = values.flag("share-devices");
    config.repeats = static_cast<int>(std::clamp<std::int64_t>(values.integer("repeats"), 0, 1000));
    if (config.repeats < 1) values.add_problem("--repeats must be between 1 and 1000");
    if (config.what == "link") config.bytes = std::uint64_t{16} << 20;  // as layers travel
    if (values.given("sizes")) {
      std::vector<std::string> problems;
      if (config.what == "convert" || config.what == "link") {
        config.bytes = values.bytes("sizes");
        if (config.bytes < 1) problems.emplace_back("--sizes: at least 1 byte is needed");
      } else {
        config.shapes = parse_shapes(values.text("sizes"), problems);
      }
      values.add_problems(std::move(problems));
    }
    return [config](JobContext& context) { return run_bench(config, context); };
  };
  return command;
}

}  // namespace moefy
