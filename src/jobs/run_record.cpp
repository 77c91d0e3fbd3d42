#include "run_record.hpp"

#include "machine.hpp"
#include "moefy/core/host.hpp"
#include "moefy/jobs/version.hpp"

namespace moefy {

RunRecord make_run_record(const JobContext& context, const std::string& backend,
                          const std::string& run_options, std::span<const LayerResult> layers) {
  RunRecord run;
  run.attributes = {
      {"moefy_version", version_line()},
      {"command_line", context.command_line},
      {"run_options", run_options},
      {"backend", backend},
      {"cpu", cpu_model()},
      {"host", host_name()},
      {"ranks", std::to_string(context.comm.size())},
      {"threads", std::to_string(context.threads)},
      {"finished", utc_time()},
      {"verified", context.verify ? "yes" : "no (--no-verify)"},
  };
  for (const LayerResult& layer : layers)
    for (const auto& [phase, seconds] : layer.seconds)
      run.times.push_back({layer.layer_index, phase, seconds, layer.rank});
  return run;
}

}  // namespace moefy
