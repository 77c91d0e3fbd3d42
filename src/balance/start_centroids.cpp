#include "start_centroids.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace moefy {
namespace {

/// State of k-means++: the cost of every row to its nearest chosen row.
class PlusPlus {
 public:
  explicit PlusPlus(const KMeansContext& context)
      : context_(context),
        nearest_(context.num_rows(), kMaxCost),
        chosen_(context.num_rows(), false) {}

  bool exhausted() const { return total_ == 0; }

  /// Smallest row whose prefix sum of costs exceeds `share` of the total.
  std::int32_t draw(double share) const {
    const auto target = static_cast<std::int64_t>(share * static_cast<double>(total_));
    std::int64_t sum = 0;
    for (std::size_t i = 0; i < nearest_.size(); ++i) {
      sum += nearest_[i];
      if (sum > target) return static_cast<std::int32_t>(i);
    }
    return static_cast<std::int32_t>(nearest_.size() - 1);
  }
  std::int32_t first_unchosen() const {
    const auto found = std::find(chosen_.begin(), chosen_.end(), false);
    return found == chosen_.end() ? 0 : static_cast<std::int32_t>(found - chosen_.begin());
  }

  /// Chooses the candidate with the lowest total afterwards (lowest row on ties); returns it.
  std::int32_t choose_best(std::vector<std::int32_t> candidates) {
    std::sort(candidates.begin(), candidates.end());
    candidates.erase(std::unique(candidates.begin(), candidates.end()), candidates.end());
    Matrix<float> rows(candidates.size(), context_.dim());
    context_.backend.read_rows(context_.points, candidates, rows.view());
    const CostView q = context_.backend.cost_buffer(2, context_.num_rows(), candidates.size());
    context_.backend.costs(context_.points, rows.view(), context_.cost_scale_log2,
                           all_sites(candidates.size()), q);
    const CostView costs = context_.backend.on_host(q);
    std::vector<std::int64_t> total(candidates.size(), 0);
    for (std::size_t i = 0; i < nearest_.size(); ++i) {
      for (std::size_t c = 0; c < candidates.size(); ++c) {
        total[c] += std::min(nearest_[i], costs.row(i)[c]);
      }
    }
    const auto best =
        static_cast<std::size_t>(std::min_element(total.begin(), total.end()) - total.begin());
    for (std::size_t i = 0; i < nearest_.size(); ++i) {
      nearest_[i] = std::min(nearest_[i], costs.row(i)[best]);
    }
    // Rounding must not leave weight on a row that is itself a centroid.
    const auto row = static_cast<std::size_t>(candidates[best]);
    total_ = total[best] - nearest_[row];
    nearest_[row] = 0;
    chosen_[row] = true;
    return candidates[best];
  }

 private:
  const KMeansContext& context_;
  std::vector<std::int32_t> nearest_;
  std::vector<bool> chosen_;
  std::int64_t total_ = std::numeric_limits<std::int64_t>::max();
};

}  // namespace

void start_from_random_rows(const KMeansContext& context, RowSelection selection,
                            RandomStream& random, Matrix<float>& centroids) {
  std::vector<std::int32_t> rows = all_sites(selection.count(context.num_rows()));
  const std::size_t distinct = std::min(rows.size(), centroids.rows());
  for (std::size_t j = 0; j < distinct; ++j) {
    std::swap(rows[j], rows[j + random.next_below(rows.size() - j)]);
  }
  std::vector<std::int32_t> chosen(centroids.rows());
  for (std::size_t j = 0; j < chosen.size(); ++j) {
    const auto i = static_cast<std::size_t>(rows[j % distinct]);
    chosen[j] = static_cast<std::int32_t>(selection.global(i));
  }
  context.backend.read_rows(context.points, chosen, centroids.view());
}

void start_from_plusplus(const KMeansContext& context, RandomStream& random,
                         Matrix<float>& centroids) {
  const std::size_t draws =
      2 + static_cast<std::size_t>(std::log(static_cast<double>(centroids.rows())));
  PlusPlus state(context);
  for (std::size_t j = 0; j < centroids.rows(); ++j) {
    context.check_stop();
    std::vector<std::int32_t> candidates;
    if (j == 0) {
      candidates.push_back(static_cast<std::int32_t>(random.next_below(context.num_rows())));
    } else if (state.exhausted()) {
      candidates.push_back(state.first_unchosen());
    } else {
      for (std::size_t c = 0; c < draws; ++c) candidates.push_back(state.draw(random.next_unit()));
    }
    const std::int32_t chosen = state.choose_best(std::move(candidates));
    context.backend.read_rows(context.points, std::span(&chosen, 1),
                              {centroids.row(j).data(), 1, centroids.cols()});
  }
}

}  // namespace moefy
