#include "moefy/jobs/convert.hpp"

#include <fmt/format.h>

#include <chrono>
#include <nlohmann/json.hpp>
#include <ostream>

#include "moefy/convert/expert_width.hpp"
#include "moefy/convert/gguf.hpp"
#include "moefy/core/file.hpp"
#include "moefy/core/text.hpp"
#include "moefy/core/utf8.hpp"
#include "moefy/jobs/factories.hpp"
#include "moefy/jobs/model_source.hpp"
#include "output_place.hpp"
#include "shared_output.hpp"

namespace moefy {

namespace {

namespace fs = std::filesystem;

/// One run of `moefy convert`. Every rank plans for itself; the plans are equal.
class ConvertJob {
 public:
  ConvertJob(const ConvertJobConfig& config, JobContext& context)
      : config_(config), context_(context) {}

  ExitCode run() {
    together(context_.comm, [&] { prepare(); });
    if (already_done()) {
      write_gguf();
      return ExitCode::done;
    }
    tell_choice();
    const auto start = std::chrono::steady_clock::now();
    SharedOutput output(context_, config_.output,
                        output_bytes(*plan_, source_->checkpoint, config_.map));
    write(output.staging());
    if (context_.verify)
      check(output.staging());
    else if (context_.is_root())
      context_.log.warning("the output was not compared with the dense model (--no-verify)");
    together(context_.comm, [&] { output.commit(); });
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    if (context_.is_root()) report(seconds.count());
    write_gguf();
    return ExitCode::done;
  }

 private:
  void prepare() {
    source_.emplace(open_model(config_.model, context_.architecture_file));
    require_folder_place(config_.output, {source_->checkpoint.directory(), config_.map});
    require_file_place(config_.gguf, {source_->checkpoint.directory(), config_.map});
    const auto map = std::make_shared<const ExpertMap>(read_expert_map(config_.map));
    check_map_belongs(source_->checkpoint, *map, config_.map.string());
    std::shared_ptr<const SafetensorsFile> refit;
    if (config_.convert.use_refit) refit = open_refit(*map, config_.map);
    plan_ = plan_conversion(source_->checkpoint, source_->layers, map, config_.convert, refit);
    require_runnable_width(*plan_);
    if (config_.gguf.empty()) return;
    check_gguf(planned_config(*plan_), config_.output.string());
    if (!context_.force && fs::exists(config_.gguf))
      throw UsageError(fmt::format("--gguf {} exists; --force replaces it", config_.gguf.string()));
  }

  /// Rank 0, from the directory as it stands.
  void write_gguf() {
    together(context_.comm, [&] {
      if (config_.gguf.empty() || !context_.is_root()) return;
      export_gguf(Checkpoint::open(config_.output), config_.gguf, config_.gguf_type, context_.force,
                  context_.stop);
      context_.log.info(
          fmt::format("{}: {}", config_.gguf.string(),
                      format_bytes(static_cast<double>(fs::file_size(config_.gguf)))));
    });
  }

  /// The same answer on all ranks: rank 0 looks.
  bool already_done() {
    bool done = false;
    together(context_.comm, [&] {
      if (!context_.is_root() || context_.force || !fs::exists(config_.output)) return;
      const fs::path manifest = manifest_of_output(config_.output);
      std::vector<std::string> differences{"it was not made by moefy convert"};
      if (fs::exists(manifest) && fs::exists(config_.output / "config.json"))
        differences =
            manifest_differences(read_text_file(manifest), manifest_text(*plan_, config_.map));
      if (!differences.empty())
        throw UsageError(fmt::format("{} is in the way: {}; --force replaces it",
                                     config_.output.string(), join_text(differences, "; ")));
      done = true;
    });
    std::vector<std::byte> answer{std::byte{done}};
    context_.comm.broadcast(answer);
    done = answer.at(0) != std::byte{0};
    if (done && context_.is_root()) context_.log.info(config_.output.string() + ": already done");
    return done;
  }

  void tell_choice() {
    if (!context_.is_root()) return;
    const ConversionSummary summary = summarize(*plan_);
    context_.log.info(fmt::format("host {}: {}", summary.host, summary.host_reason));
    for (const std::string& note : summary.notes) context_.log.info(note);
  }

  void write(const fs::path& staging) {
    ThreadPool pool(context_.threads);
    share_work(context_, "writing", "files", file_weights(shards_of(*plan_)),
               [&](std::size_t shard, std::stop_token stop) {
                 write_shard(*plan_, source_->checkpoint, shard, staging, pool, stop);
                 return std::string();
               });
    together(context_.comm, [&] {
      if (context_.is_root()) write_metadata(*plan_, source_->checkpoint, config_.map, staging);
    });
  }

  /// Reads back what was written.
  void check(const fs::path& staging) {
    std::optional<Checkpoint> converted;
    together(context_.comm, [&] { converted.emplace(Checkpoint::open(staging)); });
    const std::unique_ptr<Backend> backend = make_backend("cpu", context_.threads);
    const std::vector<std::uint64_t> weights(num_layers(*plan_), 1);
    share_work(context_, "checking", "layers", weights,
               [&](std::size_t layer, std::stop_token stop) {
                 const LayerCheck found =
                     check_layer(*plan_, source_->checkpoint, *converted, layer, *backend, stop);
                 if (!found.problem.empty()) throw InternalError(found.problem);
                 return std::string();
               });
  }

  std::string equality(const ConversionSummary& summary) const {
    const char* what =
        summary.shares_neurons ? ", equal to dense layers in which a neuron counts as often as it "
                                 "stands in the lists"
        : config_.convert.use_refit ? ", equal to the dense model but for refitted down projections"
                                    : ", equal to the dense model with all experts on";
    return what + up_to_score_scale(summary);
  }

  void report(double seconds) {
    const ConversionSummary summary = summarize(*plan_);
    if (context_.json) {
      context_.out
          << nlohmann::ordered_json{{"schema_version", 1},
                                    {"type", "convert"},
                                    {"output", valid_utf8(config_.output.string())},
                                    {"host", summary.host},
                                    {"host_reason", summary.host_reason},
                                    {"experts", summary.num_experts},
                                    {"shared", summary.num_shared},
                                    {"top_k", summary.top_k},
                                    {"top_k_editable", summary.top_k_editable},
                                    {"expert_width", summary.expert_width},
                                    {"shares_neurons", summary.shares_neurons},
                                    {"routed_scale",
                                     {summary.smallest_routed_scale, summary.largest_routed_scale}},
                                    {"parameters_before", summary.parameters_before},
                                    {"parameters_after", summary.parameters_after},
                                    {"parameters_in_experts", summary.parameters_in_experts},
                                    {"parameters_active", summary.parameters_active},
                                    {"verified", context_.verify},
                                    {"seconds", seconds}}
                 .dump()
          << "\n";
      return;
    }
    context_.log.info(fmt::format("{}: {} in {} files, {}{}", config_.output.string(),
                                  format_bytes(static_cast<double>(shards_of(*plan_).total_bytes)),
                                  shards_of(*plan_).files.size(), format_seconds(seconds),
                                  context_.verify ? equality(summary) : ""));
  }

  const ConvertJobConfig& config_;
  JobContext& context_;
  std::optional<ModelSource> source_;
  std::shared_ptr<const ConversionPlan> plan_;
};

}  // namespace

std::vector<std::string> validate(const ConvertJobConfig& config) {
  std::vector<std::string> problems = config.convert.validate();
  if (config.model.empty()) problems.push_back("convert needs MODEL: a folder or a name");
  if (config.map.empty()) problems.push_back("convert needs MAP.h5, made by moefy split");
  if (config.output.empty()) problems.push_back("convert needs -o OUT, the folder to make");
  if (!config.gguf.empty() && config.convert.layout == "fused")
    problems.push_back("--gguf is made of the classic layout, not of --layout fused");
  return problems;
}

ExitCode run_convert(const ConvertJobConfig& config, JobContext& context) {
  return ConvertJob(config, context).run();
}

}  // namespace moefy
