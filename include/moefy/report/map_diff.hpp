#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "moefy/core/matrix.hpp"
#include "moefy/store/expert_map.hpp"

namespace moefy {

/// Neurons that list i of `a` and list j of `b` have in common [experts of a + 1, experts of b +
/// 1]; the shared lists of each together are its last one. For two partitions it is their
/// contingency table. Both are of the same number of neurons.
Matrix<std::int64_t> common_neurons(const NeuronLists& a, const NeuronLists& b);

/// Adjusted mutual information of the two labellings behind a contingency table: 1 for equal up to
/// renaming, about 0 for independent ones (Vinh, Epps, Bailey, JMLR 2010; mean of the entropies as
/// normaliser). Two labellings of one group each: 1.
double adjusted_mutual_information(const Matrix<std::int64_t>& table);

/// One layer of two maps compared.
struct LayerDiff {
  std::int64_t layer_index = 0;
  std::string name;
  /// Why the layers cannot be compared (only in one map, other widths); then nothing else is set.
  std::string incomparable;
  bool same_experts =
      false;  ///< equal lists of neurons, expert numbers and order of members included
  bool same_contents = false;  ///< … and centroids, prices, router, figures, fingerprint
  std::int64_t moved = 0;      ///< members outside the matched experts
  std::int64_t num_neurons = 0;
  /// Members of all lists: num_neurons for partitions; of lists that share neurons those of the map
  /// that has more.
  std::int64_t num_members = 0;
  std::vector<std::int32_t> matched;  ///< [experts of a] expert of b, -1: none (fewer in b)
  /// Adjusted mutual information, shared neurons as one group; absent where experts share neurons.
  std::optional<double> information;
  std::optional<double> inertia_ratio;  ///< J of b / J of a
};

struct MapDiff {
  std::vector<std::string> header;  ///< what differs beside the layers, in words
  std::vector<LayerDiff> layers;    ///< by layer_index, those of both maps
  bool same() const;                ///< results equal; /run does not count
};

/// The assignment of rows to columns [rows] that maximises the sum of the given overlaps; rows <=
/// columns. It comes from the caller, who knows a solver.
using Matching = std::function<std::vector<std::int32_t>(const Matrix<std::int64_t>& overlap)>;

MapDiff compare_maps(const ExpertMap& a, const ExpertMap& b, const Matching& match);

std::string diff_table(const MapDiff& diff);
/// JSON lines without line feeds: one of type "diff", one a layer of type "layer-diff".
std::vector<std::string> diff_json_lines(const MapDiff& diff);

}  // namespace moefy
