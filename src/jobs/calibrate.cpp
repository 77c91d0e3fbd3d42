#include "moefy/jobs/calibrate.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>

#include "moefy/backend/linear_algebra.hpp"
#include "moefy/checkpoint/safetensors_file.hpp"
#include "moefy/checkpoint/writer.hpp"
#include "moefy/convert/convert.hpp"
#include "moefy/core/error.hpp"
#include "moefy/core/stopwatch.hpp"
#include "moefy/core/text.hpp"
#include "moefy/jobs/factories.hpp"
#include "moefy/jobs/model_source.hpp"
#include "moefy/jobs/version.hpp"
#include "moefy/schedule/journal.hpp"
#include "moefy/split/down_refit.hpp"
#include "moefy/store/expert_map.hpp"
#include "moefy/store/layer_record.hpp"

namespace moefy {

namespace {

using nlohmann::json;
namespace fs = std::filesystem;

fs::path with_suffix(fs::path path, const char* suffix) { return path += suffix; }

/// Inputs of one layer as they were handed over.
class StoredInputs : public LayerInputs {
 public:
  void reset(std::size_t width) {
    width_ = width;
    values_.clear();
  }
  void append(MatrixView<const float> rows) {
    values_.insert(values_.end(), rows.values().begin(), rows.values().end());
  }
  std::size_t num_tokens() const override { return width_ == 0 ? 0 : values_.size() / width_; }
  MatrixView<const float> rows(std::size_t first, std::size_t count,
                               Matrix<float>& /*scratch*/) const override {
    return {values_.data() + first * width_, count, width_};
  }
  MatrixView<const float> all() const { return {values_.data(), num_tokens(), width_}; }

 private:
  std::size_t width_ = 0;
  std::vector<float> values_;
};

/// A journal record: the layer's record and the refitted down projection in file dtype.
std::vector<std::byte> encode(const LayerResult& result, std::span<const std::byte> down) {
  const std::vector<std::byte> record = encode_layer(result);
  const std::uint64_t length = record.size();
  std::vector<std::byte> bytes(sizeof length + record.size() + down.size());
  std::memcpy(bytes.data(), &length, sizeof length);
  std::ranges::copy(record, bytes.begin() + sizeof length);
  std::ranges::copy(down, bytes.end() - static_cast<std::ptrdiff_t>(down.size()));
  return bytes;
}

struct FinishedLayer {
  LayerResult result;
  std::vector<std::byte> down;  ///< as the tensor lies in the file; empty without a refit
};

FinishedLayer decode(std::span<const std::byte> bytes, const std::string& place) {
  std::uint64_t length = 0;
  if (bytes.size() < sizeof length) throw InputError(place + ": cut off");
  std::memcpy(&length, bytes.data(), sizeof length);
  bytes = bytes.subspan(sizeof length);
  if (length > bytes.size()) throw InputError(place + ": cut off");
  FinishedLayer layer{decode_layer(bytes.first(length), place), {}};
  layer.down.assign(bytes.begin() + static_cast<std::ptrdiff_t>(length), bytes.end());
  return layer;
}

const FfnTensor& down_tensor(const LayerInfo& layer) { return *layer.find(FfnRole::down); }

/// The bytes of down rows [n, d] as the tensor lies in the file.
std::vector<std::byte> as_in_file(const FfnTensor& tensor, const Matrix<float>& down) {
  std::vector<float> turned;
  std::span<const float> values = down.values();
  if (!tensor.neuron_first) {
    turned.resize(values.size());
    for (std::size_t i = 0; i < down.rows(); ++i)
      for (std::size_t j = 0; j < down.cols(); ++j) turned[j * down.rows() + i] = down.row(i)[j];
    values = turned;
  }
  std::vector<std::byte> raw(values.size() * size_of(tensor.dtype));
  narrow(tensor.dtype, values, raw);
  return raw;
}

/// The reverse.
void from_file(const FfnTensor& tensor, std::span<const std::byte> raw, Matrix<float>& down) {
  if (tensor.neuron_first) return widen(tensor.dtype, raw, down.values());
  std::vector<float> turned(down.values().size());
  widen(tensor.dtype, raw, turned);
  for (std::size_t i = 0; i < down.rows(); ++i)
    for (std::size_t j = 0; j < down.cols(); ++j) down.row(i)[j] = turned[j * down.rows() + i];
}

void round_router(DType dtype, RouterWeights& router) {
  std::vector<std::byte> raw(router.weight.values().size() * size_of(dtype));
  narrow(dtype, router.weight.values(), raw);
  widen(dtype, raw, router.weight.values());
}

/// UsageError unless an MoE host can carry the model with these counts: asked with a made-up map.
void check_host(const ModelSource& source, const ExpertCounts& counts) {
  auto map = std::make_shared<ExpertMap>();
  map->header.num_layers = static_cast<std::int64_t>(source.layers.size());
  const auto lists = static_cast<std::size_t>(counts.experts + counts.shared);
  for (const LayerInfo& layer : source.layers) {
    std::vector<std::int32_t> label(static_cast<std::size_t>(layer.num_neurons));
    for (std::size_t i = 0; i < label.size(); ++i) {
      const auto list = static_cast<std::int32_t>(i % lists);
      label[i] = list < counts.experts ? list : kSharedLabel;
    }
    LayerResult& result = map->layers.emplace_back();
    result.layer_index = layer.index;
    result.name = layer.name;
    result.hidden_size = layer.hidden_size;
    result.partition =
        Partition::from_labels(std::move(label), static_cast<std::size_t>(counts.experts),
                               static_cast<std::size_t>(counts.shared));
  }
  ConvertConfig config;
  config.top_k = counts.top_k;
  plan_conversion(source.checkpoint, source.layers, map, config);
}

/// The counts that were asked for; with shared experts of its own choice the nearest number of them
/// that a host can carry.
ExpertCounts carried_counts(const CalibrateConfig& config, const ModelSource& source) {
  const ExpertCounts wanted =
      choose_expert_counts(config.granularity, config.active, config.shared);
  const std::int64_t lists = wanted.shared + wanted.top_k;
  std::string first_reason;
  for (std::int64_t distance = 0; distance < lists; ++distance) {
    for (const std::int64_t shared : {wanted.shared - distance, wanted.shared + distance}) {
      const ExpertCounts counts{config.granularity - shared, shared, lists - shared};
      if (shared < 0 || counts.top_k < 1) continue;
      try {
        check_host(source, counts);
        return counts;
      } catch (const UsageError& error) {
        if (first_reason.empty()) first_reason = error.what();
      }
    }
    if (config.shared >= 0) break;
  }
  throw UsageError(first_reason);
}

void check_finite(MatrixView<const float> rows, const char* what) {
  const auto at = first_non_finite(rows.values());
  if (!at) return;
  throw InputError(fmt::format("{} of the layer: token {}, column {} is not finite", what,
                               *at / rows.cols, *at % rows.cols));
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
  return problems;
}

ExpertCounts choose_expert_counts(std::int64_t granularity, double active, std::int64_t shared) {
  const auto lists =
      static_cast<std::int64_t>(std::llround(active * static_cast<double>(granularity)));
  if (shared < 0) {
    double part = 4;
    if (4 * lists <= granularity) part = 2;
    if (4 * lists >= 3 * granularity) part = 3;
    shared = std::max<std::int64_t>(1, std::llround(static_cast<double>(lists) / part));
  }
  const ExpertCounts counts{granularity - shared, shared, lists - shared};
  if (counts.top_k < 1 || counts.experts < counts.top_k)
    throw UsageError(fmt::format(
        "--granularity {} --active {} --shared {}: {} lists are on for a token, which leaves {} of "
        "{} routed experts to choose; take a finer granularity or fewer shared ones",
        granularity, active, shared, lists, counts.top_k, counts.experts));
  return counts;
}

struct Calibrator::Impl {
  Impl(const CalibrateConfig& config_in, const std::function<void(const std::string&)>& warn_in)
      : config(config_in),
        warn(warn_in ? warn_in : [](const std::string&) {}),
        source(open_checked(config)),
        counts(carried_counts(config, source)),
        backend(make_backend("cpu", config.threads)),
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
                    config.force || is_abandoned_journal(place, fingerprint, sampled_item()));
    for (const std::int64_t id : journal->finished(warn)) {
      if (id == sampled_item()) {
        has_sampled = true;
        continue;
      }
      const FinishedLayer there = read_layer(static_cast<std::size_t>(id));
      const LayerInfo& info = source.layers.at(static_cast<std::size_t>(id));
      if (there.result.fingerprint != layer_fingerprint(source.checkpoint, info))
        throw UsageError(
            fmt::format("{}: layer {}: the weights of the model have changed since; "
                        "--force starts anew",
                        journal->directory().string(), id));
      done.push_back(id);
    }
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

  FinishedLayer read_layer(std::size_t index) const {
    return decode(journal->read(static_cast<std::int64_t>(index)),
                  fmt::format("{}: layer {}", journal->directory().string(), index));
  }

  // ---- one layer ----

  void begin(std::size_t index) {
    tokens.reset();
    current.emplace(load_ffn_layer(source.checkpoint, source.layers.at(index)));
    inputs.reset(current->hidden_size());
    streams.reset(current->hidden_size());
    result.reset();
    if (!finished(index)) return;
    FinishedLayer there = read_layer(index);
    take(std::move(there.result), there.down);
  }

  bool finished(std::size_t index) const {
    return std::ranges::find(done, static_cast<std::int64_t>(index)) != done.end();
  }

  void take(LayerResult fitted, std::span<const std::byte> down) {
    if (!down.empty()) from_file(down_tensor(current->info), down, current->down);
    result = std::move(fitted);
  }

  void add(MatrixView<const float> rows, MatrixView<const float> stream) {
    require(current && !result, "begin comes before add, fit after it");
    require(
        rows.cols == current->hidden_size() && stream.cols == rows.cols && stream.rows == rows.rows,
        "inputs and stream [T, hidden_size]");
    try {
      check_finite(rows, "inputs");
      check_finite(stream, "residual stream");
    } catch (const Error&) {
      rethrow_with_context(fmt::format("layer {} ({})", current->info.index, current->info.name));
    }
    inputs.append(rows);
    streams.append(stream);
  }

  /// 1 / ‖stream + output‖² for each token, scaled to a mean of 1: an error counts by what it is
  /// beside the stream that carries it on.
  void weigh_tokens() {
    const std::size_t width = current->hidden_size();
    weights.assign(tokens->num_tokens(), 0.0F);
    Matrix<float> output;
    std::vector<double> exact(weights.size());
    std::vector<double> output_squares;
    tokens->for_each_block([&](const CalibrationTokens::Block& block) {
      output.resize(block.hidden.rows, width);
      multiply(block.hidden, current->down.view(), output.view(), backend->threads());
      for (const double squares : squared_row_norms(output.view(), backend->threads()))
        output_squares.push_back(squares);
      for (std::size_t t = 0; t < output.rows(); ++t) {
        const std::span<const float> stream = streams.all().row(block.first + t);
        double squares = 0;
        for (std::size_t j = 0; j < width; ++j) {
          const double value = static_cast<double>(stream[j]) +
                               static_cast<double>(output.row(t)[j]) +
                               (current->down_bias.empty() ? 0.0 : current->down_bias[j]);
          squares += value * value;
        }
        exact[block.first + t] = squares > 0 ? 1 / squares : 0;
      }
    });
    double mean = 0;
    for (const double weight : exact) mean += weight;
    mean /= static_cast<double>(std::max<std::size_t>(1, exact.size()));
    dense_square = 0;
    for (std::size_t t = 0; t < exact.size(); ++t) {
      weights[t] = mean > 0 ? static_cast<float>(exact[t] / mean) : 1.0F;
      dense_square += weights[t] * output_squares[t];
    }
  }

  const LayerResult& fit(const std::stop_token& stop) {
    require(current && !result, "add comes before fit");
    const std::string place = fmt::format("layer {} ({})", current->info.index, current->info.name);
    try {
      fit_layer(stop);
    } catch (const Error&) {
      rethrow_with_context(place);
    }
    return *result;
  }

  void fit_layer(const std::stop_token& stop) {
    const LayerInfo& info = current->info;
    ThreadPool& threads = backend->threads();
    Stopwatch stopwatch;
    std::vector<std::pair<std::string, double>> seconds;
    const auto phase = [&](const char* name) {
      seconds.emplace_back(name, stopwatch.seconds());
      stopwatch = Stopwatch();
    };
    tokens.emplace(*current, inputs, config.cache_bytes, threads);
    weigh_tokens();
    phase("activations");
    const RoutedSplitConfig routed{counts.top_k, config.rounds, config.router_ridge};
    RoutedSplit found = split_by_routing(*tokens, weights, split, routed, workspace, stop);
    // What counts is the router as it will be stored.
    round_router(down_tensor(info).dtype, found.router);
    phase("split");
    LayerResult fitted = described(found);
    phase("describe");
    std::vector<std::byte> down;
    if (config.refit > 0) {
      DownRefit refit = refit_down(*tokens, weights, dense_square, fitted.router,
                                   fitted.partition.labels(), counts.top_k, config.refit);
      fitted.metrics.emplace_back("output_error", refit.error_after);
      fitted.metrics.emplace_back("output_error_without_refit", refit.error_before);
      down = as_in_file(down_tensor(info), refit.down);
      current->down = std::move(refit.down);
    } else {
      fitted.metrics.emplace_back("output_error",
                                  routed_error(*tokens, weights, dense_square, fitted.router,
                                               fitted.partition.labels(), counts.top_k));
    }
    phase("refit");
    fitted.seconds = std::move(seconds);
    journal->append(info.index, encode(fitted, down));
    done.push_back(info.index);
    result = std::move(fitted);
  }

  /// The result without the figures of its output.
  LayerResult described(RoutedSplit& found) {
    const RowSource rows = rows_of(*current);
    const SplitTask task{current->info, split, rows, nullptr, {}};
    LayerResult fitted = result_of_labels(task, workspace, "routed", found.label);
    fitted.router = std::move(found.router);
    if (!found.lost_energy.empty())
      fitted.metrics = {{"lost_energy_first", found.lost_energy.front()},
                        {"lost_energy_last", found.lost_energy.back()}};
    fitted.fingerprint = current->fingerprint;
    return fitted;
  }

  void apply(MatrixView<const float> rows, MatrixView<float> out) {
    require(current && result, "fit comes before apply");
    require(rows.cols == current->hidden_size() && out.rows == rows.rows && out.cols == rows.cols,
            "inputs and outputs [T, hidden_size]");
    Matrix<float> hidden, factor;
    for (std::size_t first = 0; first < rows.rows; first += kTokenBlock) {
      const std::size_t count = std::min(kTokenBlock, rows.rows - first);
      const MatrixView<const float> block{rows.data + first * rows.cols, count, rows.cols};
      hidden.resize(count, current->num_neurons());
      ffn_hidden(*current, block, hidden.view(), factor, backend->threads());
      output_of(block, hidden.view(), {out.data + first * out.cols, count, out.cols});
    }
  }

  /// The same for the tokens that were added, whose hidden activations are there.
  void apply_to_added(MatrixView<float> out) {
    require(current && result && tokens, "add and fit come before apply_to_added");
    require(out.rows == tokens->num_tokens() && out.cols == current->hidden_size(),
            "outputs [T, hidden_size] of all tokens added");
    Matrix<float> hidden;
    tokens->for_each_block([&](const CalibrationTokens::Block& block) {
      hidden.resize(block.hidden.rows, block.hidden.cols);
      std::ranges::copy(block.hidden.values(), hidden.values().begin());
      output_of(block.inputs, hidden.view(),
                {out.data + block.first * out.cols, block.hidden.rows, out.cols});
    });
  }

  /// Routed outputs from hidden activations, which are changed.
  void output_of(MatrixView<const float> rows, MatrixView<float> hidden, MatrixView<float> out) {
    ThreadPool& threads = backend->threads();
    Matrix<float> scores(rows.rows, static_cast<std::size_t>(counts.experts));
    Matrix<float> chosen(rows.rows, static_cast<std::size_t>(counts.experts));
    router_scores(result->router, rows, scores.view(), threads);
    choose_experts(scores.view(), static_cast<std::size_t>(counts.top_k), chosen.view(), threads);
    mask_hidden(chosen.view(), result->partition.labels(), hidden, threads);
    multiply(hidden, current->down.view(), out, threads);
    if (current->down_bias.empty()) return;
    for (std::size_t t = 0; t < out.rows; ++t)
      for (std::size_t j = 0; j < out.cols; ++j) out.row(t)[j] += current->down_bias[j];
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
  std::unique_ptr<Backend> backend;
  SplitWorkspace workspace;
  SplitConfig split;
  std::unique_ptr<OutputLock> lock;
  std::optional<Journal> journal;
  std::vector<std::int64_t> done;
  bool already_done = false;
  bool has_sampled = false;  ///< the journal holds what the model wrote

  std::optional<FfnLayer> current;
  StoredInputs inputs, streams;
  std::optional<CalibrationTokens> tokens;  ///< of `inputs`, once fitting has begun
  std::vector<float> weights;
  double dense_square = 0;  ///< Σ_t w_t ‖y_t‖² of the dense layer
  std::optional<LayerResult> result;
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
bool Calibrator::finished(std::size_t layer) const { return impl_->finished(layer); }
std::vector<std::int64_t> Calibrator::sampled() const { return impl_->sampled(); }
void Calibrator::keep_sampled(std::span<const std::int64_t> ids) { impl_->keep_sampled(ids); }
void Calibrator::begin(std::size_t layer) { impl_->begin(layer); }
void Calibrator::add(MatrixView<const float> inputs, MatrixView<const float> stream) {
  impl_->add(inputs, stream);
}
const LayerResult& Calibrator::fit(std::stop_token stop) { return impl_->fit(stop); }
void Calibrator::apply(MatrixView<const float> inputs, MatrixView<float> out) {
  impl_->apply(inputs, out);
}
void Calibrator::apply_to_added(MatrixView<float> out) { impl_->apply_to_added(out); }
void Calibrator::finish() { impl_->finish(); }

}  // namespace moefy
