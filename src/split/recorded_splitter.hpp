#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "moefy/split/splitter.hpp"

namespace moefy {

/// A method whose labels come from what was recorded of a layer. The result is described by the
/// rows of --weights like that of every other method, and carries the centroid router.
class RecordedSplitter : public Splitter {
 public:
  RecordingNeed needs(const SplitConfig&) const override { return RecordingNeed::inputs; }
  LayerResult split(const SplitTask& task, SplitWorkspace& workspace) const override;

 protected:
  using Metrics = std::vector<std::pair<std::string, double>>;
  /// Labels [num_neurons] with the always-on neurons chosen; `metrics` takes figures of the method.
  virtual std::vector<std::int32_t> labels(const SplitTask& task, SplitWorkspace& workspace,
                                           Metrics& metrics) const = 0;
};

/// The neurons that are not in `shared` (ascending), ascending.
std::vector<std::int32_t> neurons_besides(std::span<const std::int32_t> shared,
                                          std::size_t num_neurons);

/// Labels of all neurons from those of the routed ones (routed_label[i] of neuron routed[i]).
std::vector<std::int32_t> labels_of_all(std::span<const std::int32_t> routed,
                                        std::span<const std::int32_t> routed_label,
                                        std::size_t num_neurons);

/// Balanced k-means of the routed neurons on their unit gate rows (up rows without a gate): where
/// methods start that refine labels.
std::vector<std::int32_t> cluster_gate_rows(const SplitTask& task, SplitWorkspace& workspace,
                                            std::span<const std::int32_t> routed);

/// Real costs as integers for balanced_assign: shifted so that each row's least is 0, and scaled by
/// a power of two so that the largest is below 2^45. InputError if one is not finite.
Matrix<std::int64_t> integer_costs(const Matrix<double>& costs);

}  // namespace moefy
