#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "moefy/balance/assignment.hpp"

namespace moefy::test {

/// Costs as a plain table, rows of sites.
using Table = std::vector<std::vector<std::int64_t>>;

/// Squared distances of points on a line to centres.
Table line_costs(const std::vector<std::int64_t>& points, const std::vector<std::int64_t>& centres);

/// The table in a cost buffer of the backend.
CostView upload(Backend& backend, const Table& costs);

struct Solved {
  std::vector<std::int32_t> label;
  std::vector<std::int32_t> price;
  SolverStatistics statistics;
  Certificate certificate;
  std::int64_t cost() const { return static_cast<std::int64_t>(certificate.cost); }
};

Solved solve(Backend& backend, const Table& costs, const Capacities& capacities,
             std::vector<std::int32_t> warm = {}, bool canonical = true);

/// balanced_assign on the same table.
Assignment solve_wide(const Table& costs, const Capacities& capacities,
                      const std::vector<std::int64_t>& warm = {});

/// Cost and lexicographically smallest labels of an optimum, by trying every labelling.
std::pair<std::int64_t, std::vector<std::int32_t>> brute_force(const Table& costs,
                                                               const Capacities& capacities);

/// "000111"
std::string digits(const std::vector<std::int32_t>& label);

/// The costs of the golden example: ((i+1)(j+3)17 + 5i² + 11j²) mod 97, 40 x 5.
Table golden_costs();

/// Random costs in [0, largest]; few distinct values make many ties.
Table random_costs(std::size_t num_rows, std::size_t num_sites, std::int64_t largest,
                   std::uint64_t seed);

}  // namespace moefy::test
