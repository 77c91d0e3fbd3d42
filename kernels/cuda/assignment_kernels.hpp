#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

namespace moefy::cuda {

/// Costs in device memory: [num_rows, stride] with num_sites columns in use.
struct DeviceCosts {
  const std::int32_t* q = nullptr;
  std::size_t num_rows = 0;
  std::size_t num_sites = 0;
  std::size_t stride = 0;
};

/// Device memory for what best_sites finds; best and margin may be null, count starts at 0.
struct DeviceChoice {
  std::int32_t* label = nullptr;
  std::int32_t* best = nullptr;
  std::int32_t* margin = nullptr;
  unsigned* count = nullptr;  ///< [num_sites]
};

/// See Backend::best_sites. prices [stride], padding kNoSite.
void best_sites(const DeviceCosts& costs, const std::int32_t* prices, const DeviceChoice& choice,
                cudaStream_t stream);

/// See Backend::smallest_moves. least [num_sites, stride]: (move + kMoveOffset) << 32 | row;
/// set it to all ones before, which stays where a site is empty.
inline constexpr std::int64_t kMoveOffset = std::int64_t{1} << 31;
void smallest_moves(const DeviceCosts& costs, const std::int32_t* label, unsigned long long* least,
                    cudaStream_t stream);

/// The rows of every site: those of site u are rows[begin[u]] … rows[begin[u + 1] - 1].
struct SiteRows {
  const std::int32_t* rows = nullptr;
  const std::int64_t* begin = nullptr;  ///< [num_sites + 1]
};
/// See Backend::list_moves. list [num_sites, num_sites, length]: as above, all ones where there are
/// no more.
void list_moves(const DeviceCosts& costs, const SiteRows& members, unsigned length,
                unsigned long long* list, cudaStream_t stream);

/// Sums of Backend::certificate_sums, of signed integers in two's complement; all start at 0.
struct DeviceCertificate {
  unsigned long long cost;
  unsigned long long row_minima;
  unsigned long long unconstrained;
  unsigned long long worst;  ///< violation << 32 | ~row, so that the largest is the first row's
};
void certificate_sums(const DeviceCosts& costs, const std::int32_t* label,
                      const std::int32_t* prices, DeviceCertificate* sums, cudaStream_t stream);

/// Adds Σ_i q[i, label_i] to *total.
void total_cost(const DeviceCosts& costs, const std::int32_t* label, unsigned long long* total,
                cudaStream_t stream);

/// Rows with a tie (see Backend::tied_rows) in any order, and their number, which starts at 0.
/// prices [stride], padding kNoSite; rows [num_rows].
void tied_rows(const DeviceCosts& costs, const std::int32_t* label, const std::int32_t* prices,
               std::int32_t* rows, unsigned* num_tied, cudaStream_t stream);

}  // namespace moefy::cuda
