#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <numeric>
#include <string_view>

#include "moefy/convert/convert.hpp"
#include "moefy/core/error.hpp"
#include "moefy/core/file.hpp"
#include "originals.hpp"
#include "plan.hpp"

namespace moefy {

namespace {

namespace fs = std::filesystem;

/// Small files that belong to the model and not to its weights.
bool is_companion(const std::string& name) {
  constexpr std::array<std::string_view, 12> kStarts = {"tokenizer",     "vocab",
                                                        "merges",        "special_tokens_map",
                                                        "added_tokens",  "generation_config",
                                                        "chat_template", "preprocessor_config",
                                                        "LICENSE",       "LICENCE",
                                                        "NOTICE",        "USE_POLICY"};
  constexpr std::array<std::string_view, 3> kEnds = {".model", ".jinja", ".tiktoken"};
  return std::ranges::any_of(kStarts, [&](auto start) { return name.starts_with(start); }) ||
         std::ranges::any_of(kEnds, [&](auto end) { return name.ends_with(end); });
}

std::vector<fs::path> companions(const fs::path& directory) {
  std::vector<fs::path> files;
  for (const fs::directory_entry& entry : fs::directory_iterator(directory))
    if (entry.is_regular_file() && is_companion(entry.path().filename().string()))
      files.push_back(entry.path());
  std::ranges::sort(files);
  return files;
}

void copy_over(const fs::path& from, const fs::path& to) {
  std::error_code error;
  fs::copy_file(from, to, fs::copy_options::overwrite_existing, error);
  if (error) throw IoError(to.string(), "copy " + from.string() + " to", error.value());
}

/// "license:" of the base model's card, if it has one.
std::string licence_of(const fs::path& directory) {
  const fs::path card = directory / "README.md";
  if (!fs::exists(card)) return "";
  const std::string text = read_text_file(card);
  constexpr std::string_view kKey = "\nlicense:";
  const std::size_t at = text.find(kKey);
  if (!text.starts_with("---") || at == std::string::npos) return "";
  const std::size_t begin = text.find_first_not_of(' ', at + kKey.size());
  if (begin == std::string::npos) return "";
  return text.substr(begin, text.find('\n', begin) - begin);
}

/// What became of the neurons where experts may share or omit them; without its full stop.
std::string sharing_sentence(const ConversionPlan& plan) {
  std::size_t neurons = 0;
  std::size_t members = 0;
  std::size_t omitted = 0;
  for (const LayerResult* result : plan.results) {
    if (!result) continue;
    neurons += result->lists().num_neurons();
    members += result->lists().members().size();
    omitted += omitted_neurons(result->lists()).size();
  }
  return fmt::format(
      "Of the {} neurons of the converted layers {} are left out, and {} copies stand beside the "
      "first ones; every weight is the dense model's own",
      neurons, omitted, members - (neurons - omitted));
}

std::string model_card(const ConversionPlan& plan, const fs::path& source) {
  const ConversionSummary summary = summarize(plan);
  const std::string licence = licence_of(source);
  std::string card = "---\n";
  if (!licence.empty()) card += "license: " + licence + "\n";
  card += "library_name: transformers\ntags:\n- moefy\n---\n\n";
  card += fmt::format("# {} as {}\n\n", source.filename().string(),
                      plan.is_moe()           ? "a Mixture of Experts"
                      : plan.shares_neurons() ? "a dense model of other width"
                                              : "a permuted dense model");
  if (plan.is_moe())
    card += fmt::format(
        "The feed-forward neurons of the dense model, split by moefy into {} experts{} (host {}, "
        "top-k {}{}). {}{}.\n\n",
        summary.num_experts,
        summary.num_shared > 0 ? fmt::format(" and {} shared ones", summary.num_shared) : "",
        summary.host, summary.top_k,
        summary.top_k_editable
            ? fmt::format("; edit `{}` in config.json for another", plan.top_k_key)
            : "",
        plan.shares_neurons() ? sharing_sentence(plan)
                              : "Split, not copied: every weight is the dense model's own",
        plan.config.use_refit ? fmt::format(", but the down projections are refitted for top-k {} "
                                            "on calibration text",
                                            plan.map->header.top_k)
                              : "");
  else if (plan.shares_neurons())
    card += sharing_sentence(plan) + ".\n\n";
  else
    card +=
        "The same function as the dense model; the neurons of each feed-forward layer stand in "
        "the order of the expert map.\n\n";
  card += fmt::format(
      "- Source fingerprint: `{}`\n- Configuration of the split: `{}`\n- The dense checkpoint "
      "comes back with `moefy restore`{}; `moefy verify` proves the conversion.\n",
      plan.map->header.source_fingerprint.hex(), plan.map->header.config,
      plan.shares_neurons() ? " if no neuron was left out" : "");
  if (licence.empty()) card += "- The licence of the base model applies.\n";
  return card;
}

std::uint64_t count(const TensorSpec& spec) { return spec.num_bytes() / size_of(spec.dtype); }

}  // namespace

std::uint64_t output_bytes(const ConversionPlan& plan, const Checkpoint& checkpoint,
                           const fs::path& map_file) {
  constexpr std::uint64_t kHeaderBytesATensor = 256;
  constexpr std::uint64_t kSmallFiles = 1'000'000;
  std::uint64_t bytes = plan.shards.total_bytes + plan.tensors.size() * kHeaderBytesATensor +
                        fs::file_size(map_file) + kSmallFiles;
  for (const std::size_t original : plan.originals)
    bytes += plan.source.tensors[original].spec.num_bytes();
  for (const fs::path& file : companions(checkpoint.directory())) bytes += fs::file_size(file);
  return bytes;
}

void write_metadata(const ConversionPlan& plan, const Checkpoint& checkpoint,
                    const fs::path& map_file, const fs::path& directory) {
  const fs::path own = directory / "moefy";
  std::error_code error;
  fs::create_directories(own, error);
  if (error) throw IoError(own.string(), "create", error.value());
  write_file_atomically(own / "source_config.json", plan.source.config_text);
  write_file_atomically(own / "manifest.json", manifest_text(plan, map_file));
  copy_over(map_file, own / "map.h5");
  write_originals(plan, checkpoint, own);
  for (const fs::path& file : companions(checkpoint.directory()))
    copy_over(file, directory / file.filename());
  write_file_atomically(directory / "README.md", model_card(plan, checkpoint.directory()));
  write_index(directory, plan.shards);
  write_file_atomically(directory / "config.json", plan.config_text);
}

void restore_metadata(const ConversionPlan& plan, const Checkpoint& converted,
                      const fs::path& directory) {
  for (const fs::path& file : companions(converted.directory()))
    copy_over(file, directory / file.filename());
  const ShardPlan shards = source_shards(plan);
  if (shards.files.size() > 1) write_index(directory, shards);
  write_file_atomically(directory / "config.json", plan.source.config_text);
}

const std::string& planned_config(const ConversionPlan& plan) { return plan.config_text; }

ConversionSummary summarize(const ConversionPlan& plan) {
  ConversionSummary summary;
  summary.host = plan.host;
  summary.host_reason = plan.host_reason;
  summary.top_k_editable = plan.top_k_editable;
  summary.num_experts = plan.shape.num_experts;
  summary.num_shared = plan.shape.num_shared;
  summary.top_k = plan.shape.top_k;
  summary.expert_width = plan.shape.expert_width;
  for (const SourceModel::Tensor& tensor : plan.source.tensors)
    summary.parameters_before += count(tensor.spec);
  for (const OutputTensor& tensor : plan.tensors) {
    summary.parameters_after += count(tensor.spec);
    const auto* parts = std::get_if<std::vector<NeuronPart>>(&tensor.recipe);
    if (parts && plan.is_moe() && !is_shared_list(parts->front().list))
      summary.parameters_in_experts += count(tensor.spec);
  }
  summary.parameters_active = summary.parameters_after;
  if (plan.is_moe()) {
    const auto experts = static_cast<std::uint64_t>(summary.num_experts);
    const auto idle = experts - static_cast<std::uint64_t>(summary.top_k);
    summary.parameters_active -= summary.parameters_in_experts / experts * idle;
    summary.notes.push_back(fmt::format(
        "{} parameters before, {} after: {} in experts, {} active for a token with top-k {}.",
        summary.parameters_before, summary.parameters_after, summary.parameters_in_experts,
        summary.parameters_active, summary.top_k));
    if (!plan.config.use_refit && !plan.shares_neurons())
      summary.notes.push_back(
          "The experts are split, not copied: their weights are the dense model's own, every "
          "neuron once.");
    if (plan.shape.padding > 0)
      summary.notes.push_back(fmt::format("{} zero neurons fill the experts up to a width of {}.",
                                          plan.shape.padding, plan.shape.expert_width));
    summary.notes.push_back(
        plan.top_k_editable
            ? fmt::format("top-k may be changed later: edit {} in config.json.", plan.top_k_key)
            : "top-k is fixed in the weights: for another, run convert --top-k again.");
  }
  std::vector<double> scales;
  for (std::size_t layer = 0; layer < plan.results.size(); ++layer)
    if (plan.is_moe() && plan.results[layer]) scales.push_back(plan.routed_scale(layer));
  if (!scales.empty()) {
    summary.smallest_routed_scale = std::ranges::min(scales);
    summary.largest_routed_scale = std::ranges::max(scales);
  }
  summary.shares_neurons = plan.shares_neurons();
  if (summary.shares_neurons) summary.notes.push_back(sharing_sentence(plan) + ".");
  summary.notes.insert(summary.notes.end(), plan.notes.begin(), plan.notes.end());
  return summary;
}

std::string up_to_score_scale(const ConversionSummary& summary) {
  const double least = summary.smallest_routed_scale;
  const double most = summary.largest_routed_scale;
  if (least == 1 && most == 1) return "";
  if (least == most)
    return fmt::format(", up to a factor {:.6g} of the routed experts (--score-scale)", least);
  return fmt::format(", up to factors {:.6g} to {:.6g} of the routed experts (--score-scale)",
                     least, most);
}

}  // namespace moefy
