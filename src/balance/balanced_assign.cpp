#include <fmt/format.h>

#include <algorithm>

#include "exact_solver.hpp"
#include "moefy/balance/assignment.hpp"
#include "moefy/core/error.hpp"

namespace moefy {
namespace {

using Total = Assignment::Total;

// Only differences within a row count, so these are what has to be small.
void check_range(MatrixView<const std::int64_t> costs) {
  constexpr std::int64_t kLargest = std::int64_t{1} << 60;
  for (std::size_t i = 0; i < costs.rows; ++i) {
    const auto [least, largest] = std::ranges::minmax(costs.row(i));
    if (least < -kLargest || largest > kLargest || largest - least > kLargestCost<std::int64_t>) {
      throw InputError(fmt::format(
          "costs of row {} range from {} to {}: they may differ by at most 2^46; scale them down",
          i, least, largest));
    }
  }
}

// Rows shifted to begin at 0: labels and gap stay the same, and every sum fits.
Matrix<std::int64_t> shifted_rows(MatrixView<const std::int64_t> costs, Total& shift) {
  Matrix<std::int64_t> shifted(costs.rows, costs.cols);
  shift = 0;
  for (std::size_t i = 0; i < costs.rows; ++i) {
    const std::int64_t least = std::ranges::min(costs.row(i));
    std::ranges::transform(costs.row(i), shifted.row(i).begin(),
                           [least](std::int64_t cost) { return cost - least; });
    shift += least;
  }
  return shifted;
}

Total dual_value(MatrixView<const std::int64_t> costs, const Capacities& capacities,
                 std::span<const std::int64_t> price) {
  Total dual = 0;
  for (std::size_t i = 0; i < costs.rows; ++i) {
    std::int64_t least = costs.row(i)[0] + price[0];
    for (std::size_t j = 1; j < costs.cols; ++j)
      least = std::min(least, costs.row(i)[j] + price[j]);
    dual += least;
  }
  for (std::size_t j = 0; j < price.size(); ++j) {
    const SizeBounds& bounds = capacities.bounds()[j];
    const auto size = static_cast<Total>(price[j] > 0 ? bounds.upper : bounds.lower);
    dual -= size * price[j];
  }
  return dual;
}

}  // namespace

Assignment balanced_assign(MatrixView<const std::int64_t> costs, const Capacities& capacities,
                           std::span<const std::int64_t> start_prices) {
  require(capacities.bounds().size() == costs.cols, "capacities of as many sites as costs");
  require(start_prices.empty() || start_prices.size() == costs.cols, "one start price a site");
  capacities.check_feasible(costs.rows);
  check_range(costs);
  Total shift = 0;
  const Matrix<std::int64_t> shifted = shifted_rows(costs, shift);

  Assignment result;
  result.label.resize(costs.rows);
  result.price.assign(costs.cols, 0);
  std::ranges::copy(start_prices, result.price.begin());
  ExactSolver<std::int64_t> solver;
  solver.solve(WideCosts(shifted.view()), capacities, true, result.price, result.label);

  for (std::size_t i = 0; i < costs.rows; ++i) {
    result.cost += shifted.row(i)[static_cast<std::size_t>(result.label[i])];
  }
  result.gap = result.cost - dual_value(shifted.view(), capacities, result.price);
  result.cost += shift;
  require(result.gap == 0, "an exact assignment has no duality gap");
  return result;
}

}  // namespace moefy
