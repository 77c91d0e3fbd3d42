#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "moefy/store/expert_map.hpp"

namespace moefy {

/// A map whose output scales are being measured by running its model (Python); a score scale is
/// what keeps the weight of a layer's output against the residual stream.
class ScoreScales {
 public:
  /// Reads model and map. UsageError for a map with refitted down projections (fitted without a
  /// scale), InputError if the map is of other weights.
  ScoreScales(const std::string& model, const std::filesystem::path& map_file,
              const std::string& architecture_file);

  ScoreScales(const ScoreScales&) = delete;
  ScoreScales& operator=(const ScoreScales&) = delete;

  const ExpertMap& map() const { return map_; }

  /// Puts the map with these scales, one a layer of the map, at `output`, by rename. `options`:
  /// JSON text of what they were measured with, kept in the map's configuration.
  void write(const std::filesystem::path& output, const std::vector<double>& scales,
             const std::string& options);

 private:
  ExpertMap map_;
};

}  // namespace moefy
