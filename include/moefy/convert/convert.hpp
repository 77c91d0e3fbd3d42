#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

#include "moefy/backend/backend.hpp"
#include "moefy/checkpoint/checkpoint.hpp"
#include "moefy/checkpoint/writer.hpp"
#include "moefy/model/architecture.hpp"
#include "moefy/store/expert_map.hpp"

namespace moefy {

struct ConvertConfig {
  std::string host = "auto";          ///< auto, dense, mixtral, qwen2-moe
  std::optional<std::int64_t> top_k;  ///< default: the map's, else E
  std::string gate_scale = "auto";    ///< auto, 1, or 2^-m
  std::int64_t align = 8;             ///< expert width is padded to a multiple with zero neurons
  std::string uneven = "pad";         ///< pad, ragged, error
  std::string layout = "classic";
  std::uint64_t shard_size = 5'000'000'000;
};

/// Everything that is decided before a byte is written; the same on every rank.
class ConversionPlan;
/// Checks model and map against each other (fingerprints, shapes) and chooses host and recipe.
/// UsageError with the nearest workable choice, InputError for a map of another checkpoint.
std::shared_ptr<const ConversionPlan> plan_conversion(const Checkpoint& checkpoint,
                                                      const Architecture& architecture,
                                                      const ExpertMap& map,
                                                      const ConvertConfig& config);

/// What the user is told: chosen host and why, is k editable, parameter counts, pads.
struct ConversionSummary {
  std::string host;
  std::string host_reason;
  bool top_k_editable = false;
  std::int64_t top_k = 0;
  std::uint64_t parameters_before = 0;
  std::uint64_t parameters_after = 0;
  std::uint64_t parameters_in_experts = 0;
  std::uint64_t parameters_active = 0;
  std::vector<std::string> notes;
};
ConversionSummary summarize(const ConversionPlan& plan);
/// Shards to write: one queue item each.
const ShardPlan& shards_of(const ConversionPlan& plan);
/// Bytes needed on disk for the whole output.
std::uint64_t output_bytes(const ConversionPlan& plan);

/// Writes shard number `shard` into `directory` (staging folder). Memory: largest FFN layer in file
/// dtype + blocks. With `verify`, every FFN layer it writes is compared with the dense one on
/// random inputs, all experts on (InternalError naming layer and neuron).
void write_shard(const ConversionPlan& plan, const Checkpoint& checkpoint, std::size_t shard,
                 const std::filesystem::path& directory, std::stop_token stop);
/// config.json, index, tokenizer and licence files, moefy/ (map, manifest, source config,
/// originals).
void write_metadata(const ConversionPlan& plan, const Checkpoint& checkpoint,
                    const std::filesystem::path& map_file, const std::filesystem::path& directory);

}  // namespace moefy
