#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "moefy/core/hash.hpp"
#include "moefy/core/log.hpp"
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
  /// File beside the map that holds refitted down projections, and its fingerprint
  /// (refit_fingerprint); empty: there is none.
  std::string refit_file;
  Digest refit_fingerprint;
  std::string config;  ///< JSON text of the result options (dataset /config)
};

/// The /run group: everything that is not a result. Empty with --reproducible.
struct RunRecord {
  /// name → text: versions, hosts, devices, run options, command line, moefy version …
  std::vector<std::pair<std::string, std::string>> attributes;
  /// Seconds by layer and phase, and the rank that did it.
  struct LayerTime {
    std::int64_t layer_index = 0;
    std::string phase;
    double seconds = 0;
    std::int64_t rank = 0;
  };
  std::vector<LayerTime> times;
  bool empty() const { return attributes.empty() && times.empty(); }
};

/// One expert map as a value; layers ascending by layer_index.
struct ExpertMap {
  ExpertMapHeader header;
  std::vector<LayerResult> layers;
  RunRecord run;

  /// The layer with that index, or nullptr.
  const LayerResult* find(std::int64_t layer_index) const;
};

/// Writes the map once: built in memory (core driver, no time stamps, earliest format), behind a
/// 512-byte user block with magic, length and XXH3-128 of the rest, by fsync and rename. The same
/// value gives the same bytes. Throws IoError; InternalError for layers that do not ascend or whose
/// arrays disagree. Not to be called from several threads at once (HDF5 keeps global state).
void write_expert_map(const std::filesystem::path& path, const ExpertMap& map);

/// The file's bytes without writing it.
std::vector<std::byte> expert_map_bytes(const ExpertMap& map);

/// Reads and validates a map; the user block is checked before HDF5 sees a byte. Throws InputError
/// (not a map, cut, flipped bit, newer schema, arrays that disagree) naming the file and layer, or
/// IoError. Groups and attributes that this version does not know are ignored. `log` gets the error
/// stack of HDF5 at debug level. Not to be called from several threads at once.
ExpertMap read_expert_map(const std::filesystem::path& path, Log* log = nullptr);
ExpertMap parse_expert_map(std::span<const std::byte> bytes, const std::string& file,
                           Log* log = nullptr);

/// Version of the HDF5 library, "1.10.8".
std::string hdf5_version();

}  // namespace moefy
