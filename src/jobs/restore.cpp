#include "moefy/jobs/restore.hpp"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <optional>
#include <ostream>

#include "moefy/convert/convert.hpp"
#include "moefy/core/utf8.hpp"
#include "output_place.hpp"
#include "shared_output.hpp"

namespace moefy {

std::vector<std::string> validate(const RestoreJobConfig& config) {
  std::vector<std::string> problems;
  if (config.converted.empty()) problems.push_back("restore needs OUT, made by moefy convert");
  if (config.output.empty()) problems.push_back("restore needs -o MODEL, the folder to make");
  return problems;
}

ExitCode run_restore(const RestoreJobConfig& config, JobContext& context) {
  std::optional<Checkpoint> converted;
  std::shared_ptr<const ConversionPlan> plan;
  together(context.comm, [&] {
    require_other_place(config.output, {config.converted});
    converted.emplace(Checkpoint::open(config.converted));
    plan = plan_of_output(*converted);
    require_restorable(*plan);
  });
  const ShardPlan shards = source_shards(*plan);
  constexpr std::uint64_t kSmallFiles = 10'000'000;
  SharedOutput output(context, config.output, shards.total_bytes + kSmallFiles);
  share_work(context, "restoring", "files", file_weights(shards),
             [&](std::size_t shard, std::stop_token stop) {
               restore_shard(*plan, *converted, shard, output.staging(), stop);
               return std::string();
             });
  together(context.comm, [&] {
    if (!context.is_root()) return;
    restore_metadata(*plan, *converted, output.staging());
    output.commit();
  });
  if (!context.is_root()) return ExitCode::done;
  if (context.json)
    context.out << nlohmann::ordered_json{{"schema_version", 1},
                                          {"type", "restore"},
                                          {"output", valid_utf8(config.output.string())},
                                          {"bytes", shards.total_bytes}}
                       .dump()
                << "\n";
  else
    context.log.info(fmt::format("{}: the dense checkpoint, {} in {} files", config.output.string(),
                                 format_bytes(static_cast<double>(shards.total_bytes)),
                                 shards.files.size()));
  return ExitCode::done;
}

}  // namespace moefy
