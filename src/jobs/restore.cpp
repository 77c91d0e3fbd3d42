#include "moefy/jobs/restore.hpp"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <optional>
#include <ostream>

#include "moefy/convert/convert.hpp"
#include "moefy/core/text.hpp"
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

namespace {

namespace fs = std::filesystem;

/// One run of `moefy restore`. Every rank reads the manifest for itself; the plans are equal.
class RestoreJob {
 public:
  RestoreJob(const RestoreJobConfig& config, JobContext& context)
      : config_(config), context_(context), pool_(context.threads) {}

  ExitCode run() {
    together(context_.comm, [&] {
      require_folder_place(config_.output, {config_.converted});
      converted_.emplace(Checkpoint::open(config_.converted));
      plan_ = plan_of_output(*converted_);
      require_restorable(*plan_);
      shards_ = source_shards(*plan_);
    });
    if (something_is_there()) {
      compare();
      if (context_.is_root()) context_.log.info(config_.output.string() + ": already done");
      return ExitCode::done;
    }
    write();
    if (context_.is_root()) report();
    return ExitCode::done;
  }

 private:
  /// The same answer on all ranks: rank 0 looks.
  bool something_is_there() {
    std::vector<std::byte> answer{
        std::byte{context_.is_root() && !context_.force && fs::exists(config_.output)}};
    context_.comm.broadcast(answer);
    return answer.at(0) != std::byte{0};
  }

  /// What is there is either exactly what this run would make, or an error.
  void compare() {
    std::optional<Checkpoint> there;
    together(context_.comm, [&] {
      try {
        there.emplace(Checkpoint::open(config_.output));
        refuse(compare_restored_structure(*plan_, *there));
      } catch (const InputError& error) {
        refuse({error.what()});
      } catch (const IoError& error) {
        refuse({error.what()});
      }
    });
    std::vector<std::string> differences;
    share_work(
        context_, "comparing", "files", file_weights(shards_),
        [&](std::size_t shard, std::stop_token stop) {
          return nlohmann::json(
                     compare_restored_shard(*plan_, *converted_, *there, shard, pool_, stop))
              .dump();
        },
        [&](std::size_t, const std::string& text) {
          for (const auto& line : nlohmann::json::parse(text)) differences.push_back(line);
        });
    together(context_.comm, [&] { refuse(differences); });
  }

  void refuse(std::vector<std::string> differences) const {
    constexpr std::size_t kShown = 10;
    if (differences.empty()) return;
    if (differences.size() > kShown) {
      differences.resize(kShown);
      differences.emplace_back("…");
    }
    throw UsageError(fmt::format("{} is in the way: {}; --force replaces it",
                                 config_.output.string(), join_text(differences, "; ")));
  }

  void write() {
    constexpr std::uint64_t kSmallFiles = 10'000'000;
    SharedOutput output(context_, config_.output, shards_.total_bytes + kSmallFiles);
    share_work(context_, "restoring", "files", file_weights(shards_),
               [&](std::size_t shard, std::stop_token stop) {
                 restore_shard(*plan_, *converted_, shard, output.staging(), pool_, stop);
                 return std::string();
               });
    together(context_.comm, [&] {
      if (!context_.is_root()) return;
      restore_metadata(*plan_, *converted_, output.staging());
      output.commit();
    });
  }

  void report() {
    if (context_.json) {
      context_.out << nlohmann::ordered_json{{"schema_version", 1},
                                             {"type", "restore"},
                                             {"output", valid_utf8(config_.output.string())},
                                             {"bytes", shards_.total_bytes}}
                          .dump()
                   << "\n";
      return;
    }
    context_.log.info(
        fmt::format("{}: the dense checkpoint, {} in {} files", config_.output.string(),
                    format_bytes(static_cast<double>(shards_.total_bytes)), shards_.files.size()));
  }

  const RestoreJobConfig& config_;
  JobContext& context_;
  ThreadPool pool_;
  std::optional<Checkpoint> converted_;
  std::shared_ptr<const ConversionPlan> plan_;
  ShardPlan shards_;
};

}  // namespace

ExitCode run_restore(const RestoreJobConfig& config, JobContext& context) {
  return RestoreJob(config, context).run();
}

}  // namespace moefy
