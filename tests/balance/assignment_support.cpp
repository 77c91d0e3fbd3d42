#include "assignment_support.hpp"

#include <algorithm>
#include <optional>

#include "moefy/core/random.hpp"

namespace moefy::test {

Table line_costs(const std::vector<std::int64_t>& points,
                 const std::vector<std::int64_t>& centres) {
  Table costs;
  for (const std::int64_t x : points) {
    costs.emplace_back();
    for (const std::int64_t c : centres) costs.back().push_back((x - c) * (x - c));
  }
  return costs;
}

CostView upload(Backend& backend, const Table& costs) {
  const std::size_t num_sites = costs.empty() ? 1 : costs[0].size();
  Matrix<std::int32_t> narrow(costs.size(), num_sites);
  for (std::size_t i = 0; i < costs.size(); ++i) {
    std::ranges::transform(costs[i], narrow.row(i).begin(),
                           [](std::int64_t cost) { return static_cast<std::int32_t>(cost); });
  }
  const CostView q = backend.cost_buffer(0, costs.size(), num_sites);
  backend.write_costs(narrow.view(), q);
  return q;
}

Solved solve(Backend& backend, const Table& costs, const Capacities& capacities,
             std::vector<std::int32_t> warm, bool canonical) {
  const CostView q = upload(backend, costs);
  Solved solved;
  solved.price = warm.empty() ? std::vector<std::int32_t>(q.num_sites, 0) : std::move(warm);
  solved.label.assign(q.num_rows, -1);
  AssignmentSolver solver(backend);
  solved.statistics = solver.solve(q, capacities, canonical, solved.price, solved.label);
  solved.certificate = check_certificate(backend, q, capacities, solved.price, solved.label);
  return solved;
}

Assignment solve_wide(const Table& costs, const Capacities& capacities,
                      const std::vector<std::int64_t>& warm) {
  Matrix<std::int64_t> matrix(costs.size(), costs[0].size());
  for (std::size_t i = 0; i < costs.size(); ++i) {
    std::ranges::copy(costs[i], matrix.row(i).begin());
  }
  return balanced_assign(matrix.view(), capacities, warm);
}

std::pair<std::int64_t, std::vector<std::int32_t>> brute_force(const Table& costs,
                                                               const Capacities& capacities) {
  const std::size_t num_sites = capacities.bounds().size();
  std::vector<std::int32_t> label(costs.size(), 0);
  std::vector<std::size_t> size(num_sites, 0);
  std::optional<std::pair<std::int64_t, std::vector<std::int32_t>>> best;
  // Labellings in lexicographic order, so the first of the cheapest is the smallest one.
  const std::function<void(std::size_t, std::int64_t)> visit = [&](std::size_t i,
                                                                   std::int64_t cost) {
    if (i == costs.size()) {
      for (std::size_t j = 0; j < num_sites; ++j) {
        if (size[j] < capacities.bounds()[j].lower) return;
      }
      if (!best || cost < best->first) best = {cost, label};
      return;
    }
    for (std::size_t j = 0; j < num_sites; ++j) {
      if (size[j] == capacities.bounds()[j].upper) continue;
      ++size[j];
      label[i] = static_cast<std::int32_t>(j);
      visit(i + 1, cost + costs[i][j]);
      --size[j];
    }
  };
  visit(0, 0);
  return best.value();
}

std::string digits(const std::vector<std::int32_t>& label) {
  std::string text;
  for (const std::int32_t site : label) text += static_cast<char>('0' + site);
  return text;
}

Table golden_costs() {
  Table costs(40, std::vector<std::int64_t>(5));
  for (std::int64_t i = 0; i < 40; ++i) {
    for (std::int64_t j = 0; j < 5; ++j) {
      costs[static_cast<std::size_t>(i)][static_cast<std::size_t>(j)] =
          ((i + 1) * (j + 3) * 17 + 5 * i * i + 11 * j * j) % 97;
    }
  }
  return costs;
}

Table random_costs(std::size_t num_rows, std::size_t num_sites, std::int64_t largest,
                   std::uint64_t seed) {
  RandomStream random(seed, 0, RandomPurpose::verification);
  Table costs(num_rows, std::vector<std::int64_t>(num_sites));
  for (auto& row : costs) {
    for (std::int64_t& cost : row) {
      cost = static_cast<std::int64_t>(random.next_below(static_cast<std::uint64_t>(largest) + 1));
    }
  }
  return costs;
}

}  // namespace moefy::test
