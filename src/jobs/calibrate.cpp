#include "moefy/jobs/calibrate.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>

#include "device_choice.hpp"
#include "expert_counts.hpp"
#include "layer_calibration.hpp"
#include "moefy/checkpoint/safetensors_file.hpp"
#include "moefy/checkpoint/writer.hpp"
#include "moefy/core/error.hpp"
#include "moefy/core/text.hpp"
#include "moefy/jobs/model_source.hpp"
#include "moefy/jobs/version.hpp"
#include "moefy/schedule/journal.hpp"
#include "moefy/store/expert_map.hpp"

namespace moefy {

namespace {

using nlohmann::json;
namespace fs = std::filesystem;

fs::path with_suffix(fs::path path, const char* suffix) { return path += suffix; }

DeviceChoice device_for(const CalibrateConfig& config) {
  if (config.backend != "cuda") return {.backend = config.backend};
  // Whoever makes it says why it cannot be made.
  if (!cuda_is_built() || config.device >= cuda_device_count()) make_cuda_backend(config.device, 1);
  return {"cuda", config.device, cuda_device(config.device).model};
}

}  // namespace

std::vector<std::string> CalibrateConfig::validate() const {
  std::vector<std::string> problems;
  if (granularity < 2 || granularity > 4096)
    problems.push_back(fmt::format("--granularity {} is not between 2 and 4096", granularity));
  if (!(active > 0) || active > 1)
    problems.push_back(fmt::format("--active {} is not above 0 and at most 1", active));
  if (shared < -1) problems.push_back(fmt::format("--shared {} is negative", shared));
  for (const auto& [name, value] : {std::pair{"--refit", refit}, {"--router-ridge", router_ridge}})
    if (!(value >= 0) || !std::isfinite(value))
      problems.push_back(fmt::format("{} {} is negative or not a number", name, value));
  if (rounds < 0 || rounds > 1000)
    problems.push_back(fmt::format("--rounds {} is not between 0 and 1000", rounds));
  if (threads < 1) problems.push_back("--threads must be at least 1");
  if (backend == "auto") problems.push_back("calibrate wants to be told who fits, not 'auto'");
  for (std::string& problem : device_option_problems(backend, device))
    problems.push_back(std::move(problem));
  return problems;
}

struct Calibrator::Impl {
  Impl(const CalibrateConfig& config_in, const std::function<void(const std::string&)>& warn_in)
      : config(config_in),
        warn(warn_in ? warn_in : [](const std::string&) {}),
        source(open_checked(config)),
        counts(carried_counts(config, source)),
        choice(device_for(config)),
        backend(make_backend(choice, config.threads)),
        workspace(*backend) {
    split.experts = counts.experts;
    split.shared = counts.shared;
    split.kmeans.seed = config.seed;
    check_layers();
    lock = std::make_unique<OutputLock>(with_suffix(config.output, ".lock"), warn);
    if (!config.force && fs::exists(config.output)) {
      compare_with_output();
      already_done = true;
      return;
    }
    const fs::path place = with_suffix(config.output, ".journal");
    const std::string fingerprint = fingerprint_json();
    journal.emplace(place, fingerprint,
                    config.force || is_abandoned_journal(place, fingerprint, sampled_item()),
                    kind_of_machine(choice));
    for (const std::int64_t id : journal->finished(warn)) {
      if (id == sampled_item()) {
        has_sampled = true;
        continue;
      }
      const CalibratedLayer there = read_layer(static_cast<std::size_t>(id));
      const LayerInfo& info = source.layers.at(static_cast<std::size_t>(id));
      if (there.result.fingerprint != layer_fingerprint(source.checkpoint, info))
        throw UsageError(
            fmt::format("{}: layer {}: the weights of the model have changed since; "
                        "--force starts anew",
                        journal->directory().string(), id));
      done.push_back(id);
    }
    if (!done.empty() || has_sampled) warn_of_other_machine(journal->machine(), choice, warn);
  }

  static ModelSource open_checked(const CalibrateConfig& config) {
    if (const std::vector<std::string> problems = config.validate(); !problems.empty())
      throw UsageError(problems);
    ModelSource source = open_model(config.model, config.architecture_file);
    for (const LayerInfo& layer : source.layers)
      if (config.granularity > layer.num_neurons)
        throw UsageError(fmt::format("--granularity {}: layer {} ({}) has only {} neurons",
                                     config.granularity, layer.index, layer.name,
                                     layer.num_neurons));
    return source;
  }

  void check_layers() const {
    std::vector<std::string> problems;
    for (const LayerInfo& layer : source.layers) {
      for (std::string& problem : split_problems(split, layer))
        problems.push_back(std::move(problem));
      const FfnTensor& down = down_tensor(layer);
      if (down.slice_total != 0 && down.slice_total != layer.num_neurons)
        problems.push_back(
            fmt::format("layer {}: its down projection is part of tensor '{}', which cannot be "
                        "refitted; take --refit 0",
                        layer.index, down.tensor));
      if (problems.size() > 10) break;
    }
    if (!problems.empty()) throw UsageError(problems);
  }

  /// Result options as JSON text with sorted keys: the map's /config.
  std::string options_json() const {
    json options;
    options["method"] = "routed";
    options["backend"] = config.backend;
    options["experts"] = counts.experts;
    options["shared"] = counts.shared;
    options["top-k"] = counts.top_k;
    options["refit"] = config.refit;
    options["router-ridge"] = config.router_ridge;
    options["rounds"] = config.rounds;
    options["seed"] = config.seed;
    options["text"] = config.text.empty() ? json::object() : json::parse(config.text);
    return options.dump();
  }

  std::string fingerprint_json() const {
    json fingerprint;
    fingerprint["options"] = json::parse(options_json());
    fingerprint["model"] = json::parse(file_identity_json(source.checkpoint));
    if (!config.architecture_file.empty())
      fingerprint["architecture"] =
          hash_bytes(to_bytes(read_text_file(config.architecture_file))).hex();
    return fingerprint.dump();
  }

  /// The journal's item behind the layers: what the model wrote.
  std::int64_t sampled_item() const { return static_cast<std::int64_t>(source.layers.size()); }

  void keep_sampled(std::span<const std::int64_t> ids) {
    require(journal.has_value(), "the calibration is not done already");
    journal->append(sampled_item(), std::as_bytes(ids));
    has_sampled = true;
  }

  std::vector<std::int64_t> sampled() const {
    require(journal.has_value(), "the calibration is not done already");
    if (!has_sampled) return {};
    const std::vector<std::byte> bytes = journal->read(sampled_item());
    std::vector<std::int64_t> ids(bytes.size() / sizeof(std::int64_t));
    std::memcpy(ids.data(), bytes.data(), ids.size() * sizeof(std::int64_t));
    return ids;
  }

  void compare_with_output() const {
    const std::string remedy = "; --force replaces it";
    std::optional<ExpertMap> map;
    try {
      map = read_expert_map(config.output);
    } catch (const InputError& error) {
      throw UsageError(std::string(error.what()) + remedy);
    }
    std::vector<std::string> differences =
        fingerprint_differences(map->header.config, options_json());
    for (const LayerInfo& layer : source.layers) {
      if (!differences.empty()) break;
      const LayerResult* found = map->find(layer.index);
      if (!found || found->fingerprint != layer_fingerprint(source.checkpoint, layer))
        differences.push_back(fmt::format("the weights of layer {} ({})", layer.index, layer.name));
    }
    if (!differences.empty())
      throw UsageError(fmt::format("{} exists and was made otherwise ({}){}",
                                   config.output.string(), fmt::join(differences, "; "), remedy));
  }

  CalibratedLayer read_layer(std::size_t index) const {
    return decode_calibrated(journal->read(static_cast<std::int64_t>(index)),
                             fmt::format("{}: layer {}", journal->directory().string(), index));
  }

  // ---- one layer ----

  void begin(std::size_t index) {
    fitting.reset();  // before the next layer needs memory
    fitting.emplace(load_ffn_layer(source.checkpoint, source.layers.at(index)), counts, config,
                    split, workspace);
    current = index;
    if (finished(index)) fitting->take(read_layer(index));
  }

  bool finished(std::size_t index) const {
    return std::ranges::find(done, static_cast<std::int64_t>(index)) != done.end();
  }

  LayerCalibration& begun() {
    require(fitting.has_value(), "begin comes first");
    return *fitting;
  }

  const LayerResult& fit(const std::stop_token& stop) {
    const std::vector<std::byte> record = begun().fit(stop);
    journal->append(static_cast<std::int64_t>(current), record);
    done.push_back(static_cast<std::int64_t>(current));
    return fitting->result();
  }

  // ---- the end ----

  void finish() {
    require(done.size() == source.layers.size(), "every layer is finished");
    ExpertMap map;
    const json model_config = json::parse(source.checkpoint.config_text());
    map.header.model_type = model_config.value("model_type", "");
    map.header.architecture = source.architecture.name();
    map.header.num_layers = static_cast<std::int64_t>(source.layers.size());
    map.header.seed = config.seed;
    map.header.top_k = counts.top_k;
    map.header.config = options_json();
    if (config.refit > 0) write_refit(map.header);
    std::vector<Digest> digests;
    for (std::size_t index = 0; index < source.layers.size(); ++index) {
      map.layers.push_back(read_layer(index).result);
      digests.push_back(map.layers.back().fingerprint);
    }
    map.header.source_fingerprint = source_fingerprint(source.checkpoint, digests);
    map.run.attributes = {{"moefy_version", version_line()},
                          {"backend", backend->name()},
                          {"threads", std::to_string(config.threads)}};
    for (const LayerResult& layer : map.layers)
      for (const auto& [phase, seconds] : layer.seconds)
        map.run.times.push_back({layer.layer_index, phase, seconds, 0});
    write_expert_map(config.output, map);
    journal->remove();
    already_done = true;
  }

  /// The refitted down projections, one after the other, so that only one is in memory.
  void write_refit(ExpertMapHeader& header) const {
    std::vector<TensorSpec> specs;
    for (const LayerInfo& layer : source.layers) {
      const TensorInfo& tensor = source.checkpoint.at(down_tensor(layer).tensor);
      specs.push_back({tensor.name, tensor.dtype, tensor.shape});
    }
    const fs::path path = fs::path(config.output).replace_extension(".refit.safetensors");
    const fs::path unfinished = with_suffix(path, ".unfinished");
    try {
      SafetensorsWriter writer(unfinished, specs);
      for (std::size_t index = 0; index < specs.size(); ++index)
        writer.write(index, 0, read_layer(index).down);
      writer.finish();
      header.refit_fingerprint = content_fingerprint(SafetensorsFile(unfinished));
    } catch (...) {
      std::error_code ignored;
      fs::remove(unfinished, ignored);
      throw;
    }
    fs::rename(unfinished, path);
    sync_directory(path.has_parent_path() ? path.parent_path() : fs::path("."));
    header.refit_file = path.filename().string();
  }

  CalibrateConfig config;
  std::function<void(const std::string&)> warn;
  ModelSource source;
  ExpertCounts counts;
  DeviceChoice choice;
  std::unique_ptr<Backend> backend;
  SplitWorkspace workspace;
  SplitConfig split;
  std::unique_ptr<OutputLock> lock;
  std::optional<Journal> journal;
  std::vector<std::int64_t> done;
  bool already_done = false;
  bool has_sampled = false;  ///< the journal holds what the model wrote

  std::optional<LayerCalibration> fitting;
  std::size_t current = 0;  ///< its index
};

Calibrator::Calibrator(const CalibrateConfig& config,
                       const std::function<void(const std::string&)>& warn)
    : impl_(std::make_unique<Impl>(config, warn)) {}
Calibrator::~Calibrator() = default;

bool Calibrator::already_done() const { return impl_->already_done; }
std::size_t Calibrator::num_layers() const { return impl_->source.layers.size(); }
const LayerInfo& Calibrator::layer(std::size_t index) const {
  return impl_->source.layers.at(index);
}
ExpertCounts Calibrator::counts() const { return impl_->counts; }
std::string Calibrator::backend_name() const { return impl_->backend->name(); }
bool Calibrator::finished(std::size_t layer) const { return impl_->finished(layer); }
std::vector<std::int64_t> Calibrator::sampled() const { return impl_->sampled(); }
void Calibrator::keep_sampled(std::span<const std::int64_t> ids) { impl_->keep_sampled(ids); }
void Calibrator::begin(std::size_t layer) { impl_->begin(layer); }
void Calibrator::add(MatrixView<const float> inputs, MatrixView<const float> stream) {
  impl_->begun().add(inputs, stream);
}
const LayerResult& Calibrator::fit(std::stop_token stop) { return impl_->fit(stop); }
void Calibrator::apply(MatrixView<const float> inputs, MatrixView<float> out) {
  impl_->begun().apply(inputs, out);
}
void Calibrator::apply_to_added(MatrixView<float> out) { impl_->begun().apply_to_added(out); }
void Calibrator::finish() { impl_->finish(); }

}  // namespace moefy
