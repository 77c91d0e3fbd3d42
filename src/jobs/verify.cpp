#include "moefy/jobs/verify.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>
#include <ostream>

#include "moefy/convert/convert.hpp"
#include "moefy/jobs/factories.hpp"
#include "moefy/jobs/model_source.hpp"
#include "shared_output.hpp"

namespace moefy {

namespace {

using Json = nlohmann::ordered_json;

/// One run of `moefy verify`.
class VerifyJob {
 public:
  VerifyJob(const VerifyJobConfig& config, JobContext& context)
      : config_(config), context_(context) {}

  ExitCode run() {
    together(context_.comm, [&] { prepare(); });
    // All ranks read the same files and have the same plan, or the same reason for none.
    if (plan_) compare();
    return context_.is_root() ? report() : tell(ExitCode::done);
  }

 private:
  void prepare() {
    source_.emplace(open_model(config_.model, context_.architecture_file));
    converted_.emplace(Checkpoint::open(config_.output));
    options_ = read_manifest_options(config_.output);
    const auto map =
        std::make_shared<const ExpertMap>(read_expert_map(map_of_output(config_.output)));
    // Readable, but of another model: that is an answer.
    try {
      plan_ = plan_conversion(source_->checkpoint, source_->layers, map, options_);
    } catch (const InputError& error) {
      differences_.push_back(error.what());
      return;
    } catch (const UsageError& error) {
      differences_.push_back(error.what());
      return;
    }
    differences_ = compare_structure(*plan_, source_->checkpoint, *converted_);
  }

  void compare() {
    ThreadPool pool(context_.threads);
    share_work(
        context_, "comparing", "files", file_weights(shards_of(*plan_)),
        [&](std::size_t shard, std::stop_token stop) {
          const auto lines =
              compare_shard(*plan_, source_->checkpoint, *converted_, shard, pool, stop);
          const RefitDistance far =
              refit_distance(*plan_, source_->checkpoint, *converted_, shard, pool, stop);
          return Json{lines, far.squared_change, far.squared_norm}.dump();
        },
        [&](std::size_t, const std::string& text) {
          const Json found = Json::parse(text);
          for (const Json& line : found[0]) differences_.push_back(line);
          refit_.squared_change += found[1].get<double>();
          refit_.squared_norm += found[2].get<double>();
        });
    // A tensor that is missing or has another shape cannot be multiplied with.
    std::vector<std::byte> sound{std::byte{differences_.empty()}};
    context_.comm.broadcast(sound);
    if (sound.at(0) == std::byte{0}) return;
    const std::unique_ptr<Backend> backend = make_backend("cpu", context_.threads);
    checks_.resize(num_layers(*plan_));
    const std::vector<std::uint64_t> weights(checks_.size(), 1);
    share_work(
        context_, "checking", "layers", weights,
        [&](std::size_t layer, std::stop_token stop) {
          const LayerCheck check =
              check_layer(*plan_, source_->checkpoint, *converted_, layer, *backend, stop);
          return Json{check.layer_index, check.difference, check.bound, check.problem}.dump();
        },
        [&](std::size_t layer, const std::string& text) {
          const Json json = Json::parse(text);
          checks_[layer] = {json[0], json[1], json[2], json[3]};
          if (!checks_[layer].problem.empty()) differences_.push_back(checks_[layer].problem);
        });
  }

  ExitCode tell(ExitCode code) {
    std::vector<std::byte> bytes{static_cast<std::byte>(code)};
    context_.comm.broadcast(bytes);
    return static_cast<ExitCode>(bytes.at(0));
  }

  ExitCode report() {
    const ExitCode code = differences_.empty() ? ExitCode::done : ExitCode::differs;
    double difference = 0;
    double bound = 0;
    for (const LayerCheck& check : checks_) {
      difference = std::max(difference, check.difference);
      bound = std::max(bound, check.bound);
    }
    if (context_.json) {
      Json json{{"schema_version", 1},
                {"type", "verify"},
                {"equal", differences_.empty()},
                {"differences", differences_},
                {"largest_difference", difference},
                {"largest_bound", bound}};
      if (plan_) {
        const ConversionSummary summary = summarize(*plan_);
        json["routed_scale"] = {summary.smallest_routed_scale, summary.largest_routed_scale};
      }
      if (uses_refit()) json["refit_distance"] = relative_refit_distance();
      for (const LayerCheck& check : checks_)
        if (config_.bound) json["bounds"][std::to_string(check.layer_index)] = check.bound;
      context_.out << json.dump() << "\n";
      return tell(code);
    }
    if (config_.bound)
      for (const LayerCheck& check : checks_)
        context_.out << fmt::format(
            "layer {:4}: all experts on {:.2e}, as stored at most {:.2e} of the output\n",
            check.layer_index, check.difference, check.bound);
    constexpr std::size_t kShown = 20;
    for (std::size_t i = 0; i < std::min(kShown, differences_.size()); ++i)
      context_.out << differences_[i] << "\n";
    if (differences_.size() > kShown)
      context_.out << fmt::format("… and {} more\n", differences_.size() - kShown);
    if (differences_.empty()) context_.out << equality(difference) << "\n";
    return tell(code);
  }

  std::string equality(double difference) const {
    const ConversionSummary summary = summarize(*plan_);
    const std::string scale = up_to_score_scale(summary);
    if (uses_refit())
      return fmt::format(
          "{} is {} rearranged: every byte has its place but for the down projections, which are "
          "refitted (distance {:.1e} of their norm; with all experts on outputs differ by {:.1e} "
          "at most{})",
          config_.output.string(), config_.model, relative_refit_distance(), difference, scale);
    if (summary.shares_neurons)
      return fmt::format(
          "{} is made of {} as the map's lists say: every byte has its place; all experts on "
          "differ by {:.1e} at most from dense layers in which a neuron counts as often as it "
          "stands in the lists{}",
          config_.output.string(), config_.model, difference, scale);
    return fmt::format(
        "{} is {} rearranged: every byte has its place, all experts on differ by {:.1e} at most{}",
        config_.output.string(), config_.model, difference, scale);
  }

  bool uses_refit() const { return options_.use_refit; }
  double relative_refit_distance() const {
    return refit_.squared_norm > 0 ? std::sqrt(refit_.squared_change / refit_.squared_norm) : 0;
  }

  const VerifyJobConfig& config_;
  JobContext& context_;
  ConvertConfig options_;
  RefitDistance refit_;
  std::optional<ModelSource> source_;
  std::optional<Checkpoint> converted_;
  std::shared_ptr<const ConversionPlan> plan_;
  std::vector<std::string> differences_;
  std::vector<LayerCheck> checks_;
};

}  // namespace

std::vector<std::string> validate(const VerifyJobConfig& config) {
  std::vector<std::string> problems;
  if (config.model.empty()) problems.push_back("verify needs MODEL: a folder or a name");
  if (config.output.empty()) problems.push_back("verify needs OUT, made by moefy convert");
  return problems;
}

ExitCode run_verify(const VerifyJobConfig& config, JobContext& context) {
  return VerifyJob(config, context).run();
}

}  // namespace moefy
