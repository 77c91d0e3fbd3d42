#include "moefy/jobs/diff.hpp"

#include <algorithm>
#include <ostream>

#include "moefy/balance/assignment.hpp"
#include "moefy/report/map_diff.hpp"
#include "moefy/store/expert_map.hpp"

namespace moefy {
namespace {

/// The matching of largest total overlap; ties as the solver breaks them (lowest expert first).
std::vector<std::int32_t> match_by_overlap(const Matrix<std::int64_t>& overlap) {
  if (overlap.rows() == 0) return {};
  const std::int64_t largest = std::ranges::max(overlap.values());
  Matrix<std::int64_t> cost(overlap.rows(), overlap.cols());
  std::ranges::transform(overlap.values(), cost.values().begin(),
                         [largest](std::int64_t value) { return largest - value; });
  const bool square = overlap.rows() == overlap.cols();
  const std::vector<SizeBounds> bounds(overlap.cols(), {square ? 1U : 0U, 1U});
  const Matrix<std::int64_t>& costs = cost;
  return balanced_assign(costs.view(), Capacities::bounded(bounds)).label;
}

}  // namespace

ExitCode run_diff(const DiffJobConfig& config, JobContext& context) {
  if (!context.is_root()) return ExitCode::done;
  const ExpertMap first = read_expert_map(config.first, &context.log);
  const ExpertMap second = read_expert_map(config.second, &context.log);
  const MapDiff diff = compare_maps(first, second, match_by_overlap);
  if (context.json) {
    for (const std::string& line : diff_json_lines(diff)) context.out << line << '\n';
  } else {
    context.out << diff_table(diff);
  }
  return diff.same() ? ExitCode::done : ExitCode::differs;
}

}  // namespace moefy
