#include "moefy/jobs/split.hpp"

#include <fmt/format.h>

#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <type_traits>

#include "device_choice.hpp"
#include "feed_choice.hpp"
#include "layer_supply.hpp"
#include "link_choice.hpp"
#include "moefy/backend/cuda_memory.hpp"
#include "moefy/core/stopwatch.hpp"
#include "moefy/core/text.hpp"
#include "moefy/jobs/factories.hpp"
#include "moefy/jobs/model_source.hpp"
#include "moefy/jobs/plan.hpp"
#include "moefy/schedule/journal.hpp"
#include "moefy/schedule/layer_queue.hpp"
#include "moefy/store/expert_map.hpp"
#include "moefy/store/layer_record.hpp"
#include "output_place.hpp"
#include "rank_table.hpp"
#include "recorded_inputs.hpp"
#include "run_record.hpp"
#include "shard_choice.hpp"
#include "shared_layers.hpp"
#include "split_report.hpp"
#include "start_layers.hpp"

namespace moefy {

namespace {

using nlohmann::json;
namespace fs = std::filesystem;

fs::path with_suffix(fs::path path, const char* suffix) { return path += suffix; }

/// One run of `moefy split`, from options to the finished map. Rank 0 owns files, journal and map;
/// the other ranks know the layers they are told.
class SplitJob {
 public:
  SplitJob(const SplitJobConfig& config, JobContext& context)
      : config_(config), context_(context), comm_(context.comm) {}

  ExitCode run() {
    device_ = choose_device(config_.backend, config_.device, config_.share_devices, context_);
    config_.backend = device_.backend;
    if (const std::string obstacle = start_obstacle(config_); !obstacle.empty())
      throw UsageError(obstacle);
    together(comm_, [&] {
      if (context_.is_root()) prepare();
    });
    tell_all();
    if (already_done_) return ExitCode::done;
    local_feed_ = choose_local_feed(config_, context_, identity_, source_);
    std::uint64_t device_memory = 0;
    together(comm_, [&] {
      limit_cuda_memory(config_.device_memory);
      backend_ = make_backend(device_, context_.threads);
      device_memory = room_on_device();
      open_recordings();
    });
    const ShardChoice sharing = choose_shards(config_, todo_layers(), device_memory, context_);
    const std::optional<SplitPlan> plan = plan_of(sharing);
    together(comm_, [&] {
      if (device_memory > 0 && plan) reserve_device_memory(*plan);
    });
    // What looks at recordings needs the whole layer on the host; shared rows enter through it.
    supply_.emplace(config_.split, *backend_, source_ ? &source_->checkpoint : nullptr,
                    recordings_.has_value() || sharing.ranks_a_layer > 1);
    if (sharing.ranks_a_layer > 1) {
      share_layers(sharing);
    } else {
      link_ = choose_link(local_feed_, device_, supply_->is_ahead(), *backend_, context_);
    }
    show_rank_table(context_, backend_->name(), link_.description);
    try {
      cluster_layers();
      together(comm_, [&] {
        if (context_.is_root()) finish();
      });
    } catch (const Interrupted&) {
      if (context_.is_root()) throw Interrupted(leave_journal());
      throw;
    } catch (...) {
      if (context_.is_root()) leave_journal();
      throw;
    }
    return ExitCode::done;
  }

 private:
  /// Bytes of this rank's GPU that may be used; 0: it has none.
  std::uint64_t room_on_device() const {
    if (device_.backend != "cuda") return 0;
    const std::uint64_t free = free_cuda_memory(device_.device);
    return config_.device_memory == 0 ? free : std::min(free, config_.device_memory);
  }

  /// None if there is nothing left to do.
  std::optional<SplitPlan> plan_of(const ShardChoice& sharing) const {
    const std::vector<LayerInfo> layers = todo_layers();
    if (layers.empty()) return std::nullopt;
    return make_split_plan(layers, config_.split, comm_.size(), 1, sharing.ranks_a_layer);
  }

  /// All that the largest layer can need, so that no layer waits for memory or fails for want of
  /// it.
  void reserve_device_memory(const SplitPlan& plan) const {
    const std::string problem = device_problem(plan, config_.device_memory);
    if (!problem.empty()) throw UsageError(problem);
    try {
      reserve_cuda_memory(device_.device, plan.own_device_memory);
    } catch (const DeviceError&) {
      rethrow_with_context("memory for the largest layer");
    }
  }

  // ---- rank 0: what there is to do -------------------------------------------------------------

  void prepare() {
    source_ = open_model(config_.model, context_.architecture_file);
    require_file_place(config_.output, {source_->checkpoint.directory(), config_.recordings});
    for (const std::int64_t index : select_layers(config_.layers, source_->layers))
      layers_.push_back(source_->layers[static_cast<std::size_t>(index)]);
    std::vector<std::string> problems;
    for (const LayerInfo& layer : layers_)
      for (std::string& problem : split_problems(config_.split, layer))
        problems.push_back(std::move(problem));
    if (problems.size() > kMostProblems) problems.resize(kMostProblems);
    if (!problems.empty()) throw UsageError(problems);
    if (!config_.init_from.empty()) start_.read(config_.init_from, layers_);
    if (open_recordings())
      for (const LayerInfo& layer : layers_) recorded_layer(*recordings_, layer);

    const auto warn = [&](const std::string& text) { context_.log.warning(text); };
    lock_ = std::make_unique<OutputLock>(with_suffix(config_.output, ".lock"), warn);
    if (!context_.force && fs::exists(config_.output)) {
      compare_with_output();
      already_done_ = true;
      return;
    }
    journal_.emplace(with_suffix(config_.output, ".journal"), fingerprint_json(), context_.force,
                     kind_of_machine(device_));
    take_finished_layers(warn);
  }

  /// Every rank reads the recordings itself. Whether there are any.
  bool open_recordings() {
    if (config_.recordings.empty()) return false;
    if (!recordings_) recordings_.emplace(config_.recordings);
    config_.recordings_identity = recordings_->identity().hex();
    return true;
  }

  std::string fingerprint_json() const {
    json fingerprint;
    fingerprint["options"] = json::parse(result_options_json(config_));
    fingerprint["model"] = json::parse(file_identity_json(source_->checkpoint));
    const auto add_file = [&](const char* key, const fs::path& path) {
      if (path.empty()) return;
      fingerprint[key] = hash_bytes(to_bytes(read_text_file(path, kLargestInputFile))).hex();
    };
    add_file("init-from", config_.init_from);
    add_file("architecture", context_.architecture_file);
    return fingerprint.dump();
  }

  /// An output that is in the way is either exactly what this run would make, or an error.
  void compare_with_output() {
    const std::string remedy = "; --force replaces it";
    std::optional<ExpertMap> map;
    try {
      map = read_expert_map(config_.output);
    } catch (const InputError& error) {
      throw UsageError(std::string(error.what()) + remedy);
    }
    std::vector<std::string> differences =
        fingerprint_differences(map->header.config, result_options_json(config_));
    if (differences.empty()) differences = layer_differences(*map);
    if (!differences.empty()) {
      throw UsageError(fmt::format("{} exists and was made otherwise ({}){}",
                                   config_.output.string(), fmt::join(differences, "; "), remedy));
    }
    context_.log.info(config_.output.string() + ": already done");
  }

  std::vector<std::string> layer_differences(const ExpertMap& map) const {
    std::vector<std::string> differences;
    for (const LayerInfo& layer : layers_) {
      const LayerResult* done = map.find(layer.index);
      if (!done || done->fingerprint != layer_fingerprint(source_->checkpoint, layer))
        differences.push_back(fmt::format("the weights of layer {} ({})", layer.index, layer.name));
    }
    return differences;
  }

  void take_finished_layers(const std::function<void(const std::string&)>& warn) {
    for (const std::int64_t id : journal_->finished(warn)) {
      const LayerInfo* layer = find_layer(id);
      const std::string place = fmt::format("{}: layer {}", journal_->directory().string(), id);
      LayerResult result = decode_layer(journal_->read(id), place);
      if (!layer || result.fingerprint != layer_fingerprint(source_->checkpoint, *layer)) {
        throw UsageError(place +
                         ": the weights of the model have changed since; --force starts anew");
      }
      results_.emplace(id, std::move(result));
    }
    if (!results_.empty()) {
      context_.log.info(fmt::format("resuming: {} of {} layers were finished before",
                                    results_.size(), layers_.size()));
    }
    if (!results_.empty()) warn_of_other_machine(journal_->machine(), device_, warn);
  }

  // ---- all ranks: the same knowledge -----------------------------------------------------------

  void tell_all() {
    json plan;
    if (context_.is_root()) {
      plan["already_done"] = already_done_;
      plan["todo"] = json::array();
      for (const LayerInfo& layer : layers_)
        if (!results_.contains(layer.index)) plan["todo"].push_back(layer.index);
      plan["identity"] = already_done_ ? "" : file_identity_json(source_->checkpoint);
    }
    std::vector<std::byte> text = to_bytes(plan.dump());
    comm_.broadcast(text);
    plan = json::parse(to_text(text));
    already_done_ = plan["already_done"];
    identity_ = plan["identity"];
    std::vector<std::byte> layers = serialize(layers_);
    comm_.broadcast(layers);
    layers_ = deserialize_layers(layers);
    todo_ = plan["todo"].get<std::vector<std::int64_t>>();
    if (!config_.init_from.empty()) start_.tell(comm_, layers_);
  }

  // ---- all ranks: the work ---------------------------------------------------------------------

  void share_layers(const ShardChoice& sharing) {
    const auto ranks = static_cast<int>(sharing.ranks_a_layer);
    shared_.emplace(
        comm_, ranks, device_, *backend_, source_ ? &source_->checkpoint : nullptr, local_feed_,
        [this](std::int64_t id) -> const LayerInfo& { return *find_layer(id); }, context_.stop);
    link_.description =
        fmt::format("{} ranks share the rows of each ({}), {}; {}", ranks, sharing.reason,
                    local_feed_ ? "every rank reads its own" : "sent by rank 0 as host messages",
                    shared_->sums_description());
  }

  void cluster_layers() {
    if (shared_ && !shared_->leads()) return shared_->follow();
    std::vector<QueueItem> items;
    for (const std::int64_t id : todo_) {
      const LayerInfo& layer = *find_layer(id);
      const auto weight = static_cast<std::uint64_t>(layer.num_neurons) *
                          static_cast<std::uint64_t>(clustered_columns(config_.split, layer));
      supply_->add(layer);
      items.push_back({id, weight, local_feed_ ? 0 : supply_->num_bytes(id)});
    }
    splitter_ = make_splitter(config_.method);
    if (shared_) {
      workspace_.emplace(shared_->backend(), shared_->backend().make_rows());
    } else {
      workspace_.emplace(*backend_, supply_->make_rows());
    }
    progress_.emplace("split", todo_.size(), "layers",
                      context_.is_root() ? context_.progress : Progress::Style::quiet);
    QueueCallbacks callbacks;
    callbacks.load = [&](std::int64_t id, std::uint64_t offset, std::span<std::byte> piece) {
      supply_->load(id, offset, piece);
    };
    if (supply_->is_ahead()) {
      callbacks.prepare = [&](std::int64_t id, PayloadReader* payload, std::stop_token stop) {
        const MemorySpace space = link_.link ? link_.link->space() : MemorySpace::host;
        in_layer(id, [&] { supply_->prepare(id, payload, space, stop); });
      };
    }
    callbacks.work = [&](std::int64_t id, PayloadReader* payload, std::stop_token stop) {
      return in_layer(id, [&] { return work(id, payload, stop); });
    };
    callbacks.commit = [&](std::int64_t id, int rank, std::vector<std::byte> bytes) {
      commit(id, rank, std::move(bytes));
    };
    const Stopwatch stopwatch;
    statistics_ =
        shared_ ? shared_->run(items, callbacks)
                : run_queue(comm_, items, callbacks, context_.stop, kPieceBytes, link_.link.get());
    queue_seconds_ = stopwatch.seconds();
    if (link_.link) link_.link->finalize();
    progress_->finish();
  }

  /// Runs `action` and adds to what it throws which layer it is about.
  template <class Action>
  std::invoke_result_t<const Action&> in_layer(std::int64_t id, const Action& action) {
    try {
      return action();
    } catch (...) {
      const LayerInfo& layer = *find_layer(id);
      rethrow_with_context(fmt::format("layer {} ({})", layer.index, layer.name));
    }
  }

  std::vector<std::byte> work(std::int64_t id, PayloadReader* payload, std::stop_token stop) {
    const LayerInfo& layer = *find_layer(id);
    const Stopwatch stopwatch;
    const LayerSupply::OpenLayer open =
        shared_ ? shared_->open(layer, payload) : supply_->open(id, payload);
    double read_seconds = 0;
    const RowSource timed_source = [&](FfnRole role, const RowsTarget& out) {
      const Stopwatch reading;
      open.source(role, out);
      read_seconds += reading.seconds();
    };
    SplitTask task{layer, config_.split, timed_source, start_.find(id), stop};
    LayerResult result;
    if (recordings_) {
      result = split_recorded(task, open);
    } else {
      result = splitter_->split(task, *workspace_);
      result.fingerprint = open.fingerprint().value_or(Digest{});
    }
    if (context_.verify) verify(result);
    result.rank = comm_.rank();
    result.seconds.emplace_back("read", read_seconds);
    double known = 0;
    for (const auto& [phase, seconds] : result.seconds) known += seconds;
    // Router, fingerprint, random split for comparison.
    result.seconds.emplace_back("other", stopwatch.seconds() - known);
    return encode_layer(result);
  }

  void verify(const LayerResult& result) const {
    if (result.sharing) return result.sharing->verify();
    const std::size_t neurons = result.partition.num_neurons();
    result.partition.verify(routed_capacities(config_.split, neurons).bounds());
  }

  /// The same with all of the layer in memory, and what was recorded of it.
  LayerResult split_recorded(const SplitTask& from, const LayerSupply::OpenLayer& open) {
    const FfnLayer loaded = load_ffn_layer(from.layer, from.source);
    const RecordedLayer& recorded = recorded_layer(*recordings_, from.layer);
    const std::optional<Digest> fingerprint = open.fingerprint();
    if (fingerprint) check_recorded_weights(*recordings_, recorded, *fingerprint);
    const RecordedInputs inputs(*recordings_, recorded, config_.max_tokens);
    const FfnOnBackend ffn(loaded, workspace_->backend.algebra());
    CalibrationTokens tokens(ffn, inputs, kHiddenCacheBytes);
    Matrix<double> importance;
    const bool needs_importance = splitter_->needs(config_.split) == RecordingNeed::importance;
    if (needs_importance) importance = recordings_->read_importance(recorded);
    const RowSource source = rows_of(loaded);
    const SplitTask task{from.layer,
                         from.config,
                         source,
                         from.start,
                         from.stop,
                         &tokens,
                         needs_importance ? &importance : nullptr};
    LayerResult result = splitter_->split(task, *workspace_);
    result.fingerprint = fingerprint.value_or(Digest{});
    return result;
  }

  /// Rank 0, as results arrive.
  void commit(std::int64_t id, int rank, std::vector<std::byte> bytes) {
    LayerResult result = decode_layer(bytes, fmt::format("result of rank {}", rank));
    if (!local_feed_ && rank > 0) {
      result.fingerprint = supply_->sent_fingerprint(id);
      if (recordings_)
        check_recorded_weights(*recordings_, recorded_layer(*recordings_, *find_layer(id)),
                               result.fingerprint);
      bytes = encode_layer(result);
    }
    // The last one goes straight into the map.
    if (results_.size() + 1 < layers_.size())
      journal_->append(id, bytes);
    else
      last_record_ = {id, std::move(bytes)};
    progress_->advance(1, result.name);
    results_.emplace(id, std::move(result));
  }

  // ---- rank 0: the end -------------------------------------------------------------------------

  void finish() {
    ExpertMap map;
    const json model_config = json::parse(source_->checkpoint.config_text());
    map.header.model_type = model_config.value("model_type", "");
    map.header.architecture = source_->architecture.name();
    map.header.num_layers = static_cast<std::int64_t>(source_->layers.size());
    map.header.seed = config_.split.kmeans.seed;
    map.header.top_k = config_.top_k;
    map.header.config = result_options_json(config_);
    std::vector<Digest> digests;
    for (auto& [id, result] : results_) {
      digests.push_back(result.fingerprint);
      map.layers.push_back(std::move(result));
    }
    map.header.source_fingerprint = source_fingerprint(source_->checkpoint, digests);
    if (!config_.reproducible)
      map.run = make_run_record(context_, backend_->name(), config_.run_options, map.layers);
    write_expert_map(config_.output, map);
    last_record_.reset();
    journal_->remove();
    report_split(context_, map, config_.output, statistics_, queue_seconds_);
  }

  /// What stays when the run ends early: the journal if a layer is in it, else nothing.
  std::string leave_journal() {
    if (last_record_) {
      try {
        journal_->append(last_record_->first, last_record_->second);
      } catch (const IoError&) {
        results_.erase(last_record_->first);  // a full disk has no room for it either
      }
    }
    if (results_.empty() || !journal_) {
      if (journal_) journal_->remove();
      return "interrupted before the first layer was finished";
    }
    return fmt::format("interrupted; {} of {} layers are kept in {}, the same command resumes",
                       results_.size(), layers_.size(), journal_->directory().string());
  }

  std::vector<LayerInfo> todo_layers() const {
    std::vector<LayerInfo> layers;
    for (const std::int64_t id : todo_) layers.push_back(*find_layer(id));
    return layers;
  }

  const LayerInfo* find_layer(std::int64_t index) const {
    for (const LayerInfo& layer : layers_)
      if (layer.index == index) return &layer;
    return nullptr;
  }

  static constexpr std::size_t kMostProblems = 10;
  static constexpr std::uint64_t kLargestInputFile = std::uint64_t{1} << 34;

  SplitJobConfig config_;  ///< --backend auto becomes what was chosen
  DeviceChoice device_;
  JobContext& context_;
  Communicator& comm_;

  std::optional<ModelSource> source_;  // other ranks: only with a local feed
  std::vector<LayerInfo> layers_;      // chosen ones
  std::vector<std::int64_t> todo_;
  StartLayers start_;
  std::string identity_;
  bool already_done_ = false;
  bool local_feed_ = true;

  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Splitter> splitter_;
  std::optional<LayerSupply> supply_;
  LayerLink link_;
  std::optional<SharedLayers> shared_;  // none: every rank has layers of its own
  std::optional<SplitWorkspace> workspace_;
  std::optional<Recordings> recordings_;

  std::unique_ptr<OutputLock> lock_;
  std::optional<Journal> journal_;
  std::map<std::int64_t, LayerResult> results_;
  std::optional<std::pair<std::int64_t, std::vector<std::byte>>> last_record_;  // in no journal yet
  std::optional<Progress> progress_;
  QueueStatistics statistics_;
  double queue_seconds_ = 0;
};

}  // namespace

ExitCode run_split(const SplitJobConfig& config, JobContext& context) {
  if (config.dry_run) return run_plan(plan_config_of(config, context), context);
  return SplitJob(config, context).run();
}

}  // namespace moefy
