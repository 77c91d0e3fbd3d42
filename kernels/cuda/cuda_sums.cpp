#include "cuda/cuda_backend.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "cuda/cuda_centroids.hpp"
#include "cuda/cuda_points.hpp"

namespace moefy {
namespace {

/// What changed between two labellings, by site: see cuda::add_rows.
struct LabelChanges {
  std::vector<std::int32_t> entry;
  std::vector<cuda::SumSegment> segment;
};

LabelChanges find_changes(RowSelection selection, std::span<const std::int32_t> old_label,
                          std::span<const std::int32_t> new_label, SiteSums& sums) {
  // Short enough that a site with most of the rows still keeps many blocks busy.
  constexpr std::int32_t kSegmentRows = 256;
  std::vector<std::vector<std::int32_t>> entries(sums.count.size());
  for (std::size_t a = 0; a < new_label.size(); ++a) {
    const std::int32_t before = old_label.empty() ? -1 : old_label[a];
    const std::int32_t after = new_label[a];
    if (before == after) continue;
    const auto row = static_cast<std::int32_t>(selection.global(a));
    if (before >= 0) {
      entries[static_cast<std::size_t>(before)].push_back(~row);
      --sums.count[static_cast<std::size_t>(before)];
    }
    if (after >= 0) {
      entries[static_cast<std::size_t>(after)].push_back(row);
      ++sums.count[static_cast<std::size_t>(after)];
    }
  }
  LabelChanges changes;
  for (std::size_t j = 0; j < entries.size(); ++j) {
    const auto begin = static_cast<std::int32_t>(changes.entry.size());
    changes.entry.insert(changes.entry.end(), entries[j].begin(), entries[j].end());
    const auto end = static_cast<std::int32_t>(changes.entry.size());
    for (std::int32_t first = begin; first < end; first += kSegmentRows) {
      const std::int32_t last = std::min(first + kSegmentRows, end);
      changes.segment.push_back({static_cast<std::int32_t>(j), first, last});
    }
  }
  return changes;
}

}  // namespace

void CudaBackend::update_sums(const Points& points, RowSelection selection,
                              std::span<const std::int32_t> old_label,
                              std::span<const std::int32_t> new_label, SiteSums& sums) {
  enter();
  const LabelChanges changes = find_changes(selection, old_label, new_label, sums);
  if (changes.entry.empty()) return;
  stream_.upload(std::span<const std::int32_t>(changes.entry), rows_.resize(changes.entry.size()));
  stream_.upload(std::span<const cuda::SumSegment>(changes.segment),
                 segments_.resize(changes.segment.size()));
  cuda::add_rows(cuda::own(points).x, points.rows.cols, std::ldexp(1.0, sums.scale_log2),
                 rows_.data(), segments_.data(), changes.segment.size(),
                 static_cast<cuda::CudaSums&>(sums).data(), stream_.handle());
}

std::vector<double> CudaBackend::block_inertia(const Points& points, const RowsView& centroids,
                                               std::span<const std::int32_t> label) {
  enter();
  const std::size_t n = points.rows.rows;
  take_columns(centroids, all_columns(centroids.rows), columns_);
  cuda::squared_distances(cuda::own(points).x, n, points.rows.cols, columns_.vectors.data(),
                          upload_labels(label), row_norm_.resize(n), stream_.handle());
  const auto distance = stream_.download<double>(row_norm_.data(), n);
  stream_.wait();
  return cuda::block_sums(distance);
}

std::vector<double> cuda::block_sums(std::span<const double> row_value) {
  std::vector<double> sums;
  for (std::size_t first = 0; first < row_value.size(); first += kSumBlock) {
    const auto block = row_value.subspan(first, std::min(kSumBlock, row_value.size() - first));
    sums.push_back(std::accumulate(block.begin(), block.end(), 0.0));
  }
  return sums;
}

}  // namespace moefy
