#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "moefy/backend/backend.hpp"

namespace moefy {

/// One instance of `bench assign`. Rows are standard normal in `dim` dimensions; the centroids are
/// means of 32 rows each. Skewed: rows come from blobs whose weights fall like 1/(1+j), so about
/// half of the rows cannot stay at their nearest centroid.
struct BenchAssignSize {
  std::size_t num_rows = 0;
  std::size_t num_sites = 0;
  bool skewed = false;
  std::size_t dim = 64;
};

/// The shapes of the performance page.
std::vector<BenchAssignSize> default_bench_assign_sizes();

struct BenchAssignRow {
  BenchAssignSize size;
  bool warm = false;  ///< the E-step after a cold one, with its certificate
  double seconds_min = 0;
  double seconds_median = 0;
  double seconds_max = 0;
  std::int64_t surplus = 0;  ///< rows too many at their nearest centroids
  std::int64_t price_passes = 0;
  std::int64_t auction_rounds = 0;
  std::int64_t auction_bids = 0;
  std::int64_t augmentations = 0;
  std::int64_t cost = 0;  ///< fixed point, of the optimum
  std::int64_t gap = 0;   ///< checked if asked for; 0: optimal
  bool optimal = false;   ///< the whole certificate holds; false if not checked
};

/// Fixed-point costs of an instance in slot 0 of the backend; the same on every machine.
CostView make_bench_costs(Backend& backend, const BenchAssignSize& size, std::uint64_t seed);

/// Times two exact assignments of each size, with equal sizes (n mod k: the first sites are the
/// larger ones), `repeats` (>= 1) times each. Generating the costs is not counted; before each run
/// they are written anew where the backend computes, as an E-step does, so that a copy of them to
/// the host counts.
/// - Cold: from prices 0; buffers are new every time.
/// - Warm, as in the EM: labels of a cold one became means, q the costs of these, and prices begin
///   as they were. Solving, with canonical labels, and the check of the certificate count together;
///   buffers are there.
std::vector<BenchAssignRow> bench_assign(Backend& backend, std::span<const BenchAssignSize> sizes,
                                         int repeats, bool check, std::uint64_t seed = 0);

}  // namespace moefy
