#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "moefy/backend/backend.hpp"

namespace moefy {

/// The published workload: several layers of uniform rows, clustered one after another.
struct BenchFasterSize {
  std::size_t num_layers = 8;
  std::size_t num_rows = 6144;
  std::size_t dim = 768;
  std::size_t num_sites = 32;
};

/// One layer, clustered `repeats` times from equal seeds: the results are equal, the times are not.
struct BenchFasterRow {
  std::size_t layer = 0;
  double seconds_min = 0;
  double seconds_median = 0;
  double seconds_max = 0;
  std::vector<std::pair<std::string, double>> phases;  ///< median seconds by phase
  double inertia = 0;                                  ///< J
  double relative_inertia = 0;  ///< J over the total sum of squares around the mean row
  double duality_gap = 0;
  std::size_t iterations = 0;  ///< fp32 E-steps
  double gigaflops = 0;        ///< fp32 costs: two operations a product, over their seconds
};

/// Rows are uniform in [0, 1), keyed by (seed, layer): the same on every machine. Generating them
/// is not counted. `repeats` >= 1.
std::vector<BenchFasterRow> bench_faster(Backend& backend, const BenchFasterSize& size, int repeats,
                                         std::uint64_t seed = 0);

}  // namespace moefy
