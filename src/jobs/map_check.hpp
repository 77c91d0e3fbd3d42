#pragma once

#include <optional>
#include <string>
#include <vector>

#include "moefy/jobs/context.hpp"
#include "moefy/jobs/model_source.hpp"
#include "moefy/store/expert_map.hpp"

namespace moefy {

/// What a recomputation said about one layer.
struct MapLayerCheck {
  std::int64_t layer_index = 0;
  std::string name;
  std::optional<double> inertia;      ///< recomputed
  std::optional<double> duality_gap;  ///< recomputed; only of clustered layers
  double gap_bound = 0;               ///< what rounding on another machine may make of a gap of 0
  std::vector<std::string> problems;  ///< empty: the map is right
};

struct MapCheck {
  std::vector<std::string> problems;  ///< of the map as a whole
  std::vector<MapLayerCheck> layers;
  bool passed() const;
};

/// Reads the model's FFN layers again and compares fingerprints, inertia and duality gap with those
/// in the map.
MapCheck check_map(const ExpertMap& map, const ModelSource& source, JobContext& context);

}  // namespace moefy
