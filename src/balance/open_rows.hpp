#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "kmeans_context.hpp"

namespace moefy {

/// The few rows that may change their site while centroids settle, as an assignment problem of its
/// own: every other row keeps its site, and the sites have only the room that those leave. A guess
/// by margins, which an E-step on all rows has to confirm.
class OpenRows {
 public:
  /// The rows whose margins in `q` are within reach of the shift of the centroids since
  /// `centroids_of_q`. Nothing if these rows are too many to be worth it. `base` is a cost matrix
  /// of all rows, too.
  static std::optional<OpenRows> find(const KMeansContext& context, const CostView& q,
                                      const Centroids& centroids_of_q, const CostView& base,
                                      const Clustering& clustering);

  const Points& points() const { return points_; }
  /// Their rows of `base`.
  const CostView& base() const { return base_; }
  const Capacities& capacities() const { return capacities_; }
  std::size_t count() const { return row_.size(); }

  /// Labels of the open rows, out of those of all rows and back.
  void gather(std::span<const std::int32_t> label, std::span<std::int32_t> open_label) const;
  void scatter(std::span<const std::int32_t> open_label, std::span<std::int32_t> label) const;

 private:
  OpenRows(const KMeansContext& context, std::vector<std::int32_t> rows, const CostView& base,
           const Clustering& clustering);

  std::vector<std::int32_t> row_;
  const Points& points_;
  CostView base_;
  Capacities capacities_;
};

}  // namespace moefy
