#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "moefy/core/error.hpp"
#include "moefy/jobs/context.hpp"
#include "moefy/split/splitter.hpp"

namespace moefy {

/// `moefy split`. Fields marked *run* do not change the map.
struct SplitJobConfig {
  std::string model;             ///< run: path or name; the fingerprints say what it was
  std::filesystem::path output;  ///< run
  std::string method = "kmeans";
  SplitConfig split;
  std::string layers;                 ///< `0-3,7`; empty: all
  std::int64_t top_k = 0;             ///< kept in the map as convert's default; 0: none
  std::filesystem::path init_from;    ///< an older map to start from; empty: none
  std::filesystem::path recordings;   ///< of `moefy record`; empty: none
  std::int64_t max_tokens = 200'000;  ///< of the recordings, from their beginning
  std::string recordings_identity;    ///< filled in by the job: what the recordings are
  std::string backend = "auto";       ///< its kind is a result option
  int device = 0;                     ///< run: GPU of the first rank of a host
  bool share_devices = false;         ///< run: several ranks may use the same GPU
  std::uint64_t device_memory = 0;    ///< run: bytes of a GPU to use at the most; 0: what is free
  std::string feed = "auto";          ///< run: auto, coordinator, local
  std::int64_t shard_rows = 0;        ///< run: ranks that share the rows of a layer; 0: auto
  bool reproducible = false;          ///< run: leave out /run
  bool dry_run = false;               ///< run
  std::string preset = "default";
  std::string run_options;  ///< run: JSON text of the run options, for /run
};

/// Every problem that can be told without opening a file.
std::vector<std::string> validate(const SplitJobConfig& config);

/// Why these centroids to start from are not to be had of the backend (of "auto" all are); empty if
/// they are.
std::string start_obstacle(const SplitJobConfig& config);

/// JSON text (sorted keys) of the result options: the map's /config and part of the resume
/// fingerprint.
std::string result_options_json(const SplitJobConfig& config);

/// Clusters the chosen FFN layers of the model on all ranks and writes the expert map. Collective.
/// Resumes from the journal beside the output; returns done if the output stands already with equal
/// options and model. Errors: UsageError (options against the model, something else in the way),
/// InputError, IoError, CommError, Interrupted (journal kept if a layer is finished).
ExitCode run_split(const SplitJobConfig& config, JobContext& context);

}  // namespace moefy
