#include "moefy/jobs/route.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <ostream>

#include "device_choice.hpp"
#include "moefy/core/text.hpp"
#include "moefy/core/utf8.hpp"
#include "moefy/jobs/factories.hpp"
#include "moefy/jobs/model_source.hpp"
#include "moefy/router/ridge_router.hpp"
#include "moefy/router/router_metrics.hpp"
#include "moefy/schedule/journal.hpp"
#include "moefy/store/expert_map.hpp"
#include "moefy/store/layer_record.hpp"
#include "output_place.hpp"
#include "recorded_inputs.hpp"
#include "shared_output.hpp"

namespace moefy {

namespace {

using nlohmann::json;
namespace fs = std::filesystem;

using Metrics = std::vector<std::pair<std::string, double>>;

bool is_router_metric(const std::pair<std::string, double>& metric) {
  return metric.first.starts_with(kRouterMetric);
}

/// One run of `moefy route`. Every rank reads model, map and recordings; rank 0 owns journal and
/// map.
class RouteJob {
 public:
  RouteJob(const RouteJobConfig& config, JobContext& context) : config_(config), context_(context) {
    if (config_.output.empty()) config_.output = config_.map;
  }

  ExitCode run() {
    // Only work on tokens is a backend's; the rest is done on the host.
    device_ = config_.recordings.empty()
                  ? DeviceChoice{.backend = "cpu"}
                  : choose_device(config_.backend, config_.device, config_.share_devices, context_);
    together(context_.comm, [&] { open(); });
    together(context_.comm, [&] {
      if (context_.is_root()) begin_journal();
    });
    tell_todo();
    try {
      fit_layers();
      together(context_.comm, [&] {
        if (context_.is_root()) finish();
      });
    } catch (...) {
      // Only finished layers are worth keeping.
      if (journal_ && results_.empty()) journal_->remove();
      throw;
    }
    return ExitCode::done;
  }

 private:
  void fit_layers() {
    std::vector<std::uint64_t> weights;
    for (const std::size_t layer : todo_)
      weights.push_back(static_cast<std::uint64_t>(source_->layers[layer].num_neurons) *
                        static_cast<std::uint64_t>(source_->layers[layer].hidden_size));
    share_work(
        context_, "route", "layers", weights,
        [&](std::size_t i, std::stop_token stop) {
          return to_text(encode_layer(routed(todo_[i], stop)));
        },
        [&](std::size_t i, const std::string& text) { commit(todo_[i], text); });
  }

  void open() {
    source_.emplace(open_model(config_.model, context_.architecture_file));
    map_ = read_expert_map(config_.map, &context_.log);
    if (config_.fitting.top_k == 0) config_.fitting.top_k = map_.header.top_k;
    if (!config_.router.empty()) fitter_ = make_router_fitter(config_.router);
    check_refit();
    if (!config_.recordings.empty()) recordings_.emplace(config_.recordings);
    for (const std::int64_t index : select_layers(config_.layers, source_->layers)) {
      const LayerResult* result = map_.find(index);
      if (!result && config_.layers.empty()) continue;
      const LayerInfo& layer = source_->layers[static_cast<std::size_t>(index)];
      check_layer(layer, result);
      chosen_.push_back(static_cast<std::size_t>(index));
    }
    limit_cuda_memory(config_.device_memory);
    backend_ = make_backend(device_, context_.threads);
    if (context_.is_root() && recordings_) context_.log.info("recordings: " + backend_->name());
  }

  void check_refit() const {
    if (map_.header.refit_file.empty() || config_.router.empty()) return;
    throw UsageError(fmt::format(
        "{}: its down projections are refitted to its routers ({}), which a new router would not "
        "fit; `moefy calibrate` fits both",
        config_.map.string(), map_.header.refit_file));
  }

  void check_layer(const LayerInfo& layer, const LayerResult* result) const {
    const std::string place =
        fmt::format("{}: layer {} ({})", config_.map.string(), layer.index, layer.name);
    if (!result) throw UsageError(place + " is not in the map");
    if (result->lists().num_neurons() != static_cast<std::size_t>(layer.num_neurons) ||
        result->hidden_size != layer.hidden_size)
      throw UsageError(place + " has another shape than that of the model");
    const auto experts = static_cast<std::int64_t>(result->lists().num_experts());
    if (config_.fitting.top_k > experts)
      throw UsageError(
          fmt::format("--top-k {}: {} has only {} experts", config_.fitting.top_k, place, experts));
    if (config_.evaluate && config_.fitting.top_k < 1)
      throw UsageError("--evaluate needs --top-k K, the experts a token is sent to");
    if (config_.evaluate && config_.router.empty() && result->router.weight.rows() == 0)
      throw UsageError(place + " has no router to evaluate");
    if (recordings_) recorded_layer(*recordings_, layer);
  }

  // ---- rank 0 ----------------------------------------------------------------------------------

  std::string options_json() const {
    json options;
    if (!config_.router.empty()) {
      options["router"] = config_.router;
      options["seed"] = config_.fitting.seed;
      if (config_.router == "ridge") options["ridge"] = config_.fitting.ridge;
      if (config_.fitting.selection_bias) options["selection-bias"] = true;
      if (config_.router == "mlp-topk") options["score"] = config_.fitting.score;
      if (config_.router == "centroid") options["similarity"] = config_.fitting.similarity;
      if (!config_.fitting.target.empty()) options["target"] = config_.fitting.target;
      if (config_.fitting.epochs > 0) options["epochs"] = config_.fitting.epochs;
    }
    options["top-k"] = config_.fitting.top_k;
    options["layers"] = config_.layers;
    options["evaluate"] = config_.evaluate;
    if (recordings_) {
      options["recordings"] = recordings_->identity().hex();
      options["backend"] = device_.backend;
      options["max-tokens"] = config_.max_tokens;
    }
    return options.dump();
  }

  void begin_journal() {
    const auto warn = [&](const std::string& text) { context_.log.warning(text); };
    require_file_place(config_.output, {source_->checkpoint.directory(), config_.recordings});
    lock_.emplace(fs::path(config_.output) += ".lock", warn);
    if (!context_.force && config_.output != config_.map && fs::exists(config_.output))
      throw UsageError(config_.output.string() + " exists; --force replaces it");
    json fingerprint;
    fingerprint["options"] = json::parse(options_json());
    fingerprint["model"] = json::parse(file_identity_json(source_->checkpoint));
    fingerprint["map"] = hash_bytes(expert_map_bytes(map_)).hex();
    journal_.emplace(fs::path(config_.output) += ".route.journal", fingerprint.dump(),
                     context_.force, kind_of_machine(device_));
    for (const std::int64_t id : journal_->finished(warn))
      results_.emplace(
          id, decode_layer(journal_->read(id),
                           fmt::format("{}: layer {}", journal_->directory().string(), id)));
    if (results_.empty()) return;
    context_.log.info(fmt::format("resuming: {} of {} layers were finished before", results_.size(),
                                  chosen_.size()));
    warn_of_other_machine(journal_->machine(), device_, warn);
  }

  void tell_todo() {
    json todo = json::array();
    for (const std::size_t layer : chosen_)
      if (!results_.contains(static_cast<std::int64_t>(layer))) todo.push_back(layer);
    std::vector<std::byte> text = to_bytes(todo.dump());
    context_.comm.broadcast(text);
    todo_ = json::parse(to_text(text)).get<std::vector<std::size_t>>();
  }

  void commit(std::size_t layer, const std::string& text) {
    const auto id = static_cast<std::int64_t>(layer);
    const std::vector<std::byte> bytes = to_bytes(text);
    LayerResult result = decode_layer(bytes, "result of a rank");
    journal_->append(id, bytes);
    results_.emplace(id, std::move(result));
  }

  void finish() {
    for (LayerResult& layer : map_.layers) {
      const auto found = results_.find(layer.layer_index);
      if (found == results_.end()) continue;
      layer = std::move(found->second);
    }
    if (!config_.router.empty()) {
      json config = json::parse(map_.header.config, nullptr, false);
      if (!config.is_object()) config = json::object();
      config["route"] = json::parse(options_json());
      map_.header.config = config.dump();
    }
    report();
    write_expert_map(config_.output, map_);
    journal_->remove();
  }

  /// Means over the layers.
  void report() const {
    std::map<std::string, double> sum;
    std::size_t count = 0;
    for (const LayerResult& layer : map_.layers) {
      if (!results_.contains(layer.layer_index)) continue;
      ++count;
      for (const auto& metric : layer.metrics)
        if (is_router_metric(metric)) sum[metric.first] += metric.second;
    }
    const std::string what = config_.router.empty() ? "measured" : config_.router;
    if (context_.json) {
      json line = {{"schema_version", 1},
                   {"type", "route"},
                   {"map", valid_utf8(config_.output.string())},
                   {"router", config_.router},
                   {"layers", count}};
      for (const auto& [name, value] : sum) line["mean"][name] = value / static_cast<double>(count);
      context_.out << line.dump() << '\n';
      return;
    }
    context_.out << fmt::format("{}: {} layers, router {}\n", config_.output.string(), count, what);
    if (sum.empty()) return;
    const auto mean = [&](const std::string& name) {
      const auto found = sum.find(kRouterMetric + name);
      return found == sum.end() ? std::string("-")
                                : fmt::format("{:.4f}", found->second / static_cast<double>(count));
    };
    context_.out << fmt::format("mean over layers, top-{}     {:>8}  {:>8}  {:>8}\n",
                                config_.fitting.top_k, "router", "oracle", "random");
    for (const auto& [name, label] : {std::pair{"captured_mass", "captured mass"},
                                      {"recall", "recall"},
                                      {"kept_energy", "kept output energy"},
                                      {"output_error", "error of the output"}})
      context_.out << fmt::format("  {:<26}  {:>8}  {:>8}  {:>8}\n", label, mean(name),
                                  mean(std::string(name) + "_oracle"),
                                  mean(std::string(name) + "_random"));
  }

  // ---- all ranks -------------------------------------------------------------------------------

  /// The layer's result with its new router and figures; taken out of this rank's copy of the map.
  LayerResult routed(std::size_t index, std::stop_token stop) {
    const LayerInfo& info = source_->layers[index];
    try {
      const FfnLayer layer = load_ffn_layer(source_->checkpoint, info);
      // Its place in the map is filled again when all layers are done.
      LayerResult result =
          std::move(*std::ranges::find(map_.layers, info.index, &LayerResult::layer_index));
      if (layer.fingerprint != result.fingerprint)
        throw UsageError(
            fmt::format("{} was made from other weights (fingerprint {}, the model "
                        "has {})",
                        config_.map.string(), result.fingerprint.hex(), layer.fingerprint.hex()));
      std::optional<RecordedInputs> inputs;
      std::optional<FfnOnBackend> ffn;
      std::optional<CalibrationTokens> tokens;
      if (recordings_) {
        const RecordedLayer& recorded = recorded_layer(*recordings_, info);
        check_recorded_weights(*recordings_, recorded, layer.fingerprint);
        inputs.emplace(*recordings_, recorded, config_.max_tokens);
        ffn.emplace(layer, backend_->algebra());
        tokens.emplace(*ffn, *inputs, kHiddenCacheBytes);
      }
      if (fitter_) {
        const RouterTask task{layer, result.lists(), config_.fitting, tokens ? &*tokens : nullptr,
                              stop};
        result.router = fitter_->fit(task);
        result.router.logit_std =
            tokens ? logit_spread(result.router, *tokens) : spread_of_rows(result.router.weight);
        std::erase_if(result.metrics, is_router_metric);
      }
      if (config_.evaluate) measure(result, *tokens);
      return result;
    } catch (...) {
      rethrow_with_context(fmt::format("layer {} ({})", info.index, info.name));
    }
  }

  void measure(LayerResult& result, CalibrationTokens& tokens) const {
    std::erase_if(result.metrics, is_router_metric);
    const Metrics figures = measure_router(tokens, result.lists(), result.router,
                                           config_.fitting.top_k, config_.fitting.seed);
    result.metrics.insert(result.metrics.end(), figures.begin(), figures.end());
    std::ranges::sort(result.metrics);
  }

  RouteJobConfig config_;
  JobContext& context_;
  std::optional<ModelSource> source_;
  ExpertMap map_;
  std::optional<Recordings> recordings_;
  std::unique_ptr<RouterFitter> fitter_;
  DeviceChoice device_;
  std::unique_ptr<Backend> backend_;
  std::vector<std::size_t> chosen_, todo_;  ///< layers by index
  std::optional<OutputLock> lock_;
  std::optional<Journal> journal_;
  std::map<std::int64_t, LayerResult> results_;
};

}  // namespace

namespace {

/// Options that say where recordings are worked on, given without any.
std::vector<std::string> devices_without_recordings(const RouteJobConfig& config) {
  if (!config.recordings.empty()) return {};
  std::vector<std::string> given;
  if (config.backend == "cuda" || config.backend == "reference")
    given.push_back("--backend " + config.backend);
  if (config.device > 0) given.push_back("--device " + std::to_string(config.device));
  if (config.share_devices) given.emplace_back("--share-devices");
  if (config.device_memory > 0) given.emplace_back("--device-memory");
  for (std::string& option : given)
    option += " is for work on --recordings; routers from weights alone are made on the host";
  return given;
}

}  // namespace

std::vector<std::string> validate(const RouteJobConfig& config) {
  std::vector<std::string> problems;
  if (config.model.empty() || config.map.empty())
    problems.push_back("route needs MODEL and MAP.h5, made by moefy split");
  if (config.router.empty() && !config.evaluate)
    problems.push_back("route needs --router NAME, or --evaluate to measure the map's own routers");
  if (config.fitting.top_k < 0) problems.push_back("--top-k must not be negative");
  if (config.fitting.epochs < 0) problems.push_back("--epochs must not be negative");
  if (config.max_tokens < 1) problems.push_back("--max-tokens must be at least 1");
  if (!(config.fitting.ridge > 0)) problems.push_back("--ridge must be above 0");
  for (std::string& problem : device_option_problems(config.backend, config.device))
    problems.push_back(std::move(problem));
  for (std::string& problem : devices_without_recordings(config))
    problems.push_back(std::move(problem));
  if (config.evaluate && config.recordings.empty())
    problems.push_back("--evaluate needs --recordings REC.h5, which `moefy record` makes");
  const std::vector<std::string> known = router_names();
  if (std::ranges::find(known, config.router) == known.end()) return problems;
  const std::unique_ptr<RouterFitter> fitter = make_router_fitter(config.router);
  if (fitter->needs_recordings() && config.recordings.empty())
    problems.push_back("--router " + config.router +
                       " needs --recordings REC.h5, which `moefy record` makes");
  if (config.fitting.similarity != "cosine" && config.router != "centroid")
    problems.push_back("--similarity " + config.fitting.similarity + " is of --router centroid");
  if (config.fitting.selection_bias && config.router != "ridge")
    problems.push_back("--selection-bias is of --router ridge");
  if (config.fitting.score != "l2" && config.router != "mlp-topk")
    problems.push_back("--score " + config.fitting.score + " is of --router mlp-topk");
  const std::vector<std::string> targets = fitter->targets();
  const std::string& target = config.fitting.target;
  if (!target.empty() && std::ranges::find(targets, target) == targets.end())
    problems.push_back("--target '" + target + "' is none of --router " + config.router +
                       (targets.empty() ? ", which has no target" : suggestion(target, targets)));
  return problems;
}

ExitCode run_route(const RouteJobConfig& config, JobContext& context) {
  return RouteJob(config, context).run();
}

}  // namespace moefy
