#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <span>

#include "moefy/comm/communicator.hpp"
#include "moefy/model/architecture.hpp"
#include "moefy/partition/layer_result.hpp"

namespace moefy {

/// The layers of an older map that a split starts from (--init-from).
class StartLayers {
 public:
  /// Rank 0: takes those of `layers`. UsageError if the map lacks one.
  void read(const std::filesystem::path& map, std::span<const LayerInfo> layers);
  /// Tells all ranks what rank 0 has read of `layers`. Collective.
  void tell(Communicator& comm, std::span<const LayerInfo> layers);
  /// Null if there is no start for the layer.
  const LayerResult* find(std::int64_t layer) const;

 private:
  std::map<std::int64_t, LayerResult> layers_;
};

}  // namespace moefy
