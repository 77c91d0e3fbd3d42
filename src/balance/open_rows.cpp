#include "open_rows.hpp"

#include <algorithm>
#include <cmath>

namespace moefy {
namespace {

// More than one row in three would cost more to copy than they save.
constexpr std::size_t kMostIsOneIn = 3;

/// How far a shift of each site may reach, in quanta: a share of the 2 |x| |shift| by which a cost
/// can change. Rows are seldom aligned with a shift, so it covers some of the shifts to come, too.
std::vector<std::int32_t> reach_of(const KMeansContext& context, const Centroids& before,
                                   const Centroids& after) {
  constexpr double kShare = 0.25;
  const double norm =
      std::sqrt(context.points.sum_squared_norm / static_cast<double>(context.num_rows()));
  const double quanta = std::ldexp(kShare * 2 * norm, context.cost_scale_log2);
  std::vector<std::int32_t> result;
  result.reserve(context.num_sites);
  for (const double shift : after.squared_shifts(before)) {
    result.push_back(static_cast<std::int32_t>(
        std::min(std::sqrt(shift) * quanta, static_cast<double>(kMaxCost))));
  }
  return result;
}

}  // namespace

std::optional<OpenRows> OpenRows::find(const KMeansContext& context, const CostView& q,
                                       const Centroids& centroids_of_q, const CostView& base,
                                       const Clustering& clustering) {
  const std::vector<std::int32_t> reach = reach_of(context, centroids_of_q, *clustering.centroids);
  // A row is open if another site may become as cheap as its own.
  std::vector<std::int32_t> lowest(clustering.prices);
  for (std::size_t j = 0; j < lowest.size(); ++j) lowest[j] -= reach[j];
  SiteChoice choice;
  context.backend.best_sites(q, lowest, true, choice);
  std::vector<std::int32_t> rows;
  for (std::size_t i = 0; i < q.num_rows; ++i) {
    const std::int32_t own = clustering.label[i];
    if (choice.label[i] != own ||
        choice.margin[i] < 2 * std::int64_t{reach[static_cast<std::size_t>(own)]}) {
      rows.push_back(static_cast<std::int32_t>(i));
    }
  }
  if (rows.empty() || kMostIsOneIn * rows.size() > q.num_rows) return std::nullopt;
  return OpenRows(context, std::move(rows), base, clustering);
}

OpenRows::OpenRows(const KMeansContext& context, std::vector<std::int32_t> rows,
                   const CostView& base, const Clustering& clustering)
    : row_(std::move(rows)),
      points_(context.open_points),
      base_(context.backend.cost_buffer(2, row_.size(), context.num_sites)),
      capacities_(context.capacities) {
  context.backend.copy_quantized(context.points, row_, context.open_points);
  context.backend.copy_rows(base, row_, base_);
  std::vector<std::size_t> open(context.num_sites, 0);
  for (std::size_t a = 0; a < row_.size(); ++a) {
    const auto i = static_cast<std::size_t>(row_[a]);
    ++open[static_cast<std::size_t>(clustering.label[i])];
  }
  std::vector<SizeBounds> bounds(capacities_.bounds().begin(), capacities_.bounds().end());
  for (std::size_t j = 0; j < bounds.size(); ++j) {
    const std::size_t kept = static_cast<std::size_t>(clustering.sums->count[j]) - open[j];
    bounds[j].lower -= std::min(bounds[j].lower, kept);
    bounds[j].upper -= kept;
  }
  capacities_ = Capacities::bounded(std::move(bounds));
}

void OpenRows::gather(std::span<const std::int32_t> label,
                      std::span<std::int32_t> open_label) const {
  for (std::size_t a = 0; a < row_.size(); ++a) {
    open_label[a] = label[static_cast<std::size_t>(row_[a])];
  }
}

void OpenRows::scatter(std::span<const std::int32_t> open_label,
                       std::span<std::int32_t> label) const {
  for (std::size_t a = 0; a < row_.size(); ++a) {
    label[static_cast<std::size_t>(row_[a])] = open_label[a];
  }
}

}  // namespace moefy
