#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "moefy/backend/backend.hpp"
#include "moefy/checkpoint/checkpoint.hpp"
#include "moefy/checkpoint/safetensors_file.hpp"
#include "moefy/checkpoint/writer.hpp"
#include "moefy/model/architecture.hpp"
#include "moefy/store/expert_map.hpp"

namespace moefy {

/// How a checkpoint and its map become weights.
struct ConvertConfig {
  std::string host = "auto";  ///< auto or a name of host_names()
  /// Experts a token; default: the map's, else E.
  std::optional<std::int64_t> top_k = std::nullopt;
  std::string gate_scale = "auto";  ///< auto, robust, 1, or 2^-m: factor on the router's rows
  /// Factor of the routed experts' sum (LLaMA-MoE's output scale): auto, a number, or calibrated
  /// (the map's). auto: 1 where experts weigh one; E with gate_scale 1, where a softmax over the
  /// chosen ones weighs them.
  std::string score_scale = "auto";
  std::int64_t align = 8;          ///< expert width is padded to a multiple with zero neurons
  std::string uneven = "pad";      ///< pad, ragged, error: experts of unequal size (ragged:
                                   ///< host llama-moe)
  std::string layout = "classic";  ///< classic: a tensor an expert; fused: one a layer
  std::uint64_t shard_size = 5'000'000'000;  ///< bytes of tensor data a file
  bool use_refit = false;  ///< down projections of the map's refit file instead of the dense ones

  /// Every problem of these values by themselves; empty if there is none.
  std::vector<std::string> validate() const;
};

/// Names for --host, without auto; the ones that automatic choice prefers first.
std::vector<std::string> host_names();
/// One line a host: what it can carry.
std::string host_description(std::string_view name);

/// Everything that is decided before a byte is written: where each byte of the output comes from.
/// The same on every rank. Immutable.
class ConversionPlan;

/// The map's refitted down projections, which lie beside it. UsageError if the map has none,
/// InputError if the file is missing or is not the one that the map was made with.
std::shared_ptr<const SafetensorsFile> open_refit(const ExpertMap& map,
                                                  const std::filesystem::path& map_file);

/// Chooses host and recipe and lays out the output. `layers` are the architecture's layers of
/// `checkpoint`; layers that `map` does not hold stay dense. With config.use_refit write_shard
/// needs `refit`, comparing does not. UsageError with the nearest choice that works if no host can
/// carry this, InputError if the map disagrees with the layers.
std::shared_ptr<const ConversionPlan> plan_conversion(
    const Checkpoint& checkpoint, std::vector<LayerInfo> layers,
    std::shared_ptr<const ExpertMap> map, const ConvertConfig& config,
    std::shared_ptr<const SafetensorsFile> refit = nullptr);

/// InputError unless `map` was made of this checkpoint's config.json and of layers with the
/// fingerprints it holds. Reads config.json only: the layers themselves are compared as they pass
/// in write_shard.
void check_map_belongs(const Checkpoint& checkpoint, const ExpertMap& map,
                       const std::string& map_file);

/// What the user is told.
struct ConversionSummary {
  std::string host;
  std::string host_reason;       ///< why this one
  bool top_k_editable = false;   ///< config.json's num_experts_per_tok may be changed afterwards
  std::int64_t num_experts = 0;  ///< 0 for the dense host
  std::int64_t num_shared = 0;
  std::int64_t top_k = 0;
  std::int64_t expert_width = 0;
  std::uint64_t parameters_before = 0;
  std::uint64_t parameters_after = 0;
  std::uint64_t parameters_in_experts = 0;  ///< routed experts
  std::uint64_t parameters_active = 0;      ///< touched for one token
  bool shares_neurons = false;              ///< neurons may stand in several experts or in none
  /// The routed experts' sum relative to the dense one, all experts on: the least and the largest
  /// of the layers. 1 unless --score-scale says otherwise.
  double smallest_routed_scale = 1;
  double largest_routed_scale = 1;
  std::vector<std::string> notes;  ///< whole sentences
};
ConversionSummary summarize(const ConversionPlan& plan);
/// What a sentence that calls the output equal to the dense model must add: ", up to a factor 3 of
/// the routed experts (--score-scale)"; empty where it is 1.
std::string up_to_score_scale(const ConversionSummary& summary);
/// config.json of the output.
const std::string& planned_config(const ConversionPlan& plan);
/// Files to write: one queue item each.
const ShardPlan& shards_of(const ConversionPlan& plan);
/// Bytes needed on disk for the whole output, the copied map and files included.
std::uint64_t output_bytes(const ConversionPlan& plan, const Checkpoint& checkpoint,
                           const std::filesystem::path& map_file);
/// Text of moefy/manifest.json; equal texts mean equal outputs.
std::string manifest_text(const ConversionPlan& plan, const std::filesystem::path& map_file);
/// "key: there X, now Y" for two manifests.
std::vector<std::string> manifest_differences(const std::string& there, const std::string& now);

/// Writes shard number `shard` into `directory`. Memory: the largest FFN layer in file dtype and
/// blocks of a few MiB a thread. The fingerprint of every FFN layer that begins in this shard is
/// compared with the map's (InputError); a scaled value that overflows is an InputError naming
/// tensor and neuron. Interrupted at a stop request. Different shards may be written by different
/// threads or ranks.
void write_shard(const ConversionPlan& plan, const Checkpoint& checkpoint, std::size_t shard,
                 const std::filesystem::path& directory, ThreadPool& pool, std::stop_token stop);

/// config.json, index, tokenizer and licence files, model card, and moefy/ (map, manifest, source
/// config, originals). With it a directory with all shards is a complete checkpoint.
void write_metadata(const ConversionPlan& plan, const Checkpoint& checkpoint,
                    const std::filesystem::path& map_file, const std::filesystem::path& directory);

/// One FFN layer of the output against the dense one on a few random inputs, all experts on,
/// routers and score scale out of the way. Where experts share neurons, a neuron of the dense layer
/// counts as often as it stands in their lists.
struct LayerCheck {
  std::int64_t layer_index = 0;
  double difference = 0;  ///< largest |y_moe - y_dense|, relative to the largest |y_dense|
  double bound = 0;  ///< largest Σ_e |w_e - 1|·‖y_e‖ as stored, relative to ‖y‖; w_e with its
                     ///< score scale
  std::string problem;  ///< layer, expert and neuron of the first difference; empty: equal
                        ///< (with a refit the difference is no problem)
};
/// Number of FFN layers, those that stay dense included.
std::size_t num_layers(const ConversionPlan& plan);
/// Reads what was really written, in tiles.
LayerCheck check_layer(const ConversionPlan& plan, const Checkpoint& dense,
                       const Checkpoint& converted, std::size_t layer, Backend& backend,
                       std::stop_token stop);

/// The options and files that a finished output was made with. InputError if `directory` was not
/// made by moefy.
ConvertConfig read_manifest_options(const std::filesystem::path& directory);
std::filesystem::path map_of_output(const std::filesystem::path& directory);
std::filesystem::path manifest_of_output(const std::filesystem::path& directory);

/// Differences between what the plan says and `converted`, beside the bytes of its tensors: names,
/// dtypes, shapes, config.json's fields, the kept source config and originals. Whole sentences.
std::vector<std::string> compare_structure(const ConversionPlan& plan, const Checkpoint& dense,
                                           const Checkpoint& converted);
/// Compares every byte of the tensors planned for `shard` but refitted ones with what the source
/// says; returns one
/// sentence for each tensor that differs, naming layer, expert and neuron where there is one.
std::vector<std::string> compare_shard(const ConversionPlan& plan, const Checkpoint& dense,
                                       const Checkpoint& converted, std::size_t shard,
                                       ThreadPool& pool, std::stop_token stop);

/// How far the refitted down projections of `shard` are from the dense ones: Σ (w' - w)² and Σ w².
struct RefitDistance {
  double squared_change = 0;
  double squared_norm = 0;
};
RefitDistance refit_distance(const ConversionPlan& plan, const Checkpoint& dense,
                             const Checkpoint& converted, std::size_t shard, ThreadPool& pool,
                             std::stop_token stop);

/// What `restore` needs, from a converted directory alone. InputError if something is missing.
std::shared_ptr<const ConversionPlan> plan_of_output(const Checkpoint& converted);
/// InputError naming layers and neurons if the output lacks neurons of the dense model.
void require_restorable(const ConversionPlan& plan);
/// Files of the dense checkpoint: one queue item each; cut, names and order as in the source.
ShardPlan source_shards(const ConversionPlan& plan);
/// Writes file number `shard` of the dense checkpoint into `directory`. Memory: as write_shard.
void restore_shard(const ConversionPlan& plan, const Checkpoint& converted, std::size_t shard,
                   const std::filesystem::path& directory, ThreadPool& pool, std::stop_token stop);
/// How `there` differs from what restore would make, beside the bytes of its tensors: files, names,
/// dtypes, shapes, config.json. Whole sentences.
std::vector<std::string> compare_restored_structure(const ConversionPlan& plan,
                                                    const Checkpoint& there);
/// One sentence for each tensor of file number `shard` whose bytes in `there` are not what restore
/// would make. For checkpoints of equal structure.
std::vector<std::string> compare_restored_shard(const ConversionPlan& plan,
                                                const Checkpoint& converted,
                                                const Checkpoint& there, std::size_t shard,
                                                ThreadPool& pool, std::stop_token stop);
/// config.json as it was, index, tokenizer and licence files.
void restore_metadata(const ConversionPlan& plan, const Checkpoint& converted,
                      const std::filesystem::path& directory);

}  // namespace moefy
