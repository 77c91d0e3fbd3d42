#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "moefy/split/splitter.hpp"

namespace moefy {

/// The matrix that a layer is clustered by, ready for the E-step, and who its rows are.
struct ClusteredRows {
  RowsView rows;                     ///< [num_routed, dim], in the workspace; unit rows with l2
  std::vector<std::int32_t> neuron;  ///< [num_routed] neuron of each row, ascending
  std::vector<double> norm;          ///< [num_neurons] before l2; only for --order norm
};

/// Reads the matrix of --weights, picks the shared neurons (they are left out of the rows), and
/// normalises.
ClusteredRows prepare_rows(const SplitTask& task, SplitWorkspace& workspace);
/// The same with given shared neurons (ascending).
ClusteredRows prepare_rows_besides(const SplitTask& task, std::span<const std::int32_t> shared,
                                   SplitWorkspace& workspace);

/// Identity of the result.
LayerResult identify_result(const SplitTask& task);

/// Identity and partition of the result; everything else is still to be filled in. `row_label`
/// [num_routed].
LayerResult begin_result(const SplitTask& task, const ClusteredRows& clustered,
                         std::span<const std::int32_t> row_label);

/// Figures of labels that no clustering of these rows made: means as centroids, inertia, and the
/// gap that prices of zero leave.
void describe_labels(LayerResult& result, const SplitTask& task, SplitWorkspace& workspace,
                     const ClusteredRows& clustered, std::span<const std::int32_t> row_label);

/// Whether the clustered rows are those that a router is fitted to, which need not be read again.
bool are_router_rows(const SplitTask& task);
/// Puts those of all neurons where the clustered ones were.
void load_router_rows(const SplitTask& task, SplitWorkspace& workspace);

/// Fits the router to the clustered rows in the workspace, if those are the router's, else to rows
/// that take their place: the last step.
void attach_router(LayerResult& result, const SplitTask& task, SplitWorkspace& workspace,
                   std::span<const std::int32_t> row_label);

/// The same, reading the router's rows anew: for labels that no clustering of rows made.
void attach_router(LayerResult& result, const SplitTask& task, SplitWorkspace& workspace);

}  // namespace moefy
