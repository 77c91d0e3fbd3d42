#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "moefy/core/hash.hpp"
#include "moefy/partition/layer_result.hpp"

namespace moefy {

inline constexpr int kExpertMapSchema = 1;

/// What the file says beside its layers.
struct ExpertMapHeader {
  std::string model_type;
  std::string architecture;     ///< name of the family file
  std::int64_t num_layers = 0;  ///< FFN layers of the model (the map may hold fewer: --layers)
  std::uint64_t seed = 0;
  std::int64_t top_k = 0;  ///< 0: none chosen
  Digest source_fingerprint;
  std::string config;  ///< JSON text of the result options (dataset /config)
};

/// The /run group: everything that is not a result. Empty with --reproducible.
struct RunRecord {
  /// name → text: versions, hosts, devices, run options, command line, moefy version …
  std::vector<std::pair<std::string, std::string>> attributes;
  /// Seconds by layer and phase: rows of (layer_index, phase, seconds), and the rank that did it.
  struct LayerTime {
    std::int64_t layer_index;
    std::string phase;
    double seconds;
  };
  std::vector<LayerTime> times;
  bool empty() const { return attributes.empty() && times.empty(); }
};

/// One expert map as a value; layers ascending by layer_index.
struct ExpertMap {
  ExpertMapHeader header;
  std::vector<LayerResult> layers;
  RunRecord run;

  const LayerResult* find(std::int64_t layer_index) const;
};

/// Writes the map once: built in memory (core driver, no time stamps, earliest format), behind a
/// 512-byte user block with magic, length and XXH3-128 of the rest, by fsync and rename. The same
/// value gives the same bytes. Throws IoError.
void write_expert_map(const std::filesystem::path& path, const ExpertMap& map);

/// The file's bytes without writing it (journal tests, fuzzing).
std::vector<std::byte> expert_map_bytes(const ExpertMap& map);

/// Reads and validates a map; the user block is checked before HDF5 sees a byte. Throws InputError
/// (not a map, cut, flipped bit, newer schema, arrays that disagree) naming the file and layer.
ExpertMap read_expert_map(const std::filesystem::path& path);
ExpertMap parse_expert_map(std::span<const std::byte> bytes, const std::string& file);

/// Version of the HDF5 library, "1.10.8".
std::string hdf5_version();

}  // namespace moefy
