// The same optimum as LEMON's network simplex finds on the transportation problem.
#ifdef MOEFY_HAVE_LEMON

#include <gtest/gtest.h>
#include <lemon/network_simplex.h>
#include <lemon/static_graph.h>

#include "assignment_support.hpp"

namespace moefy::test {
namespace {

std::int64_t network_simplex_cost(const Table& costs, const Capacities& capacities) {
  using Graph = lemon::StaticDigraph;
  const auto num_rows = static_cast<int>(costs.size());
  const auto num_sites = static_cast<int>(costs[0].size());
  const int sink = num_rows + num_sites;
  std::vector<std::pair<int, int>> arcs;
  for (int i = 0; i < num_rows; ++i) {
    for (int j = 0; j < num_sites; ++j) arcs.emplace_back(i, num_rows + j);
  }
  for (int j = 0; j < num_sites; ++j) arcs.emplace_back(num_rows + j, sink);
  Graph graph;
  graph.build(sink + 1, arcs.begin(), arcs.end());

  Graph::ArcMap<std::int64_t> cost(graph, 0), lower(graph, 0), upper(graph, 1);
  Graph::NodeMap<std::int64_t> supply(graph, 0);
  for (int i = 0; i < num_rows; ++i) {
    supply[graph.node(i)] = 1;
    for (int j = 0; j < num_sites; ++j) {
      cost[graph.arc(i * num_sites + j)] =
          costs[static_cast<std::size_t>(i)][static_cast<std::size_t>(j)];
    }
  }
  supply[graph.node(sink)] = -num_rows;
  for (int j = 0; j < num_sites; ++j) {
    const SizeBounds& bounds = capacities.bounds()[static_cast<std::size_t>(j)];
    lower[graph.arc(num_rows * num_sites + j)] = static_cast<std::int64_t>(bounds.lower);
    upper[graph.arc(num_rows * num_sites + j)] = static_cast<std::int64_t>(bounds.upper);
  }
  lemon::NetworkSimplex<Graph, std::int64_t> simplex(graph);
  simplex.costMap(cost).lowerMap(lower).upperMap(upper).supplyMap(supply);
  EXPECT_EQ(simplex.run(), simplex.OPTIMAL);
  return simplex.totalCost<std::int64_t>();
}

TEST(AssignmentAgainstLemonTest, finds_the_same_optimum) {
  const auto backend = make_cpu_backend(1);
  struct Case {
    std::size_t num_rows, num_sites;
    std::int64_t largest;
  };
  for (const Case& c : {Case{500, 8, 1 << 20}, Case{1000, 16, 30}, Case{700, 33, 1 << 26}}) {
    SCOPED_TRACE(c.num_rows);
    Table costs = random_costs(c.num_rows, c.num_sites, c.largest, 77);
    for (std::size_t i = 0; i < costs.size(); i += 2) costs[i][1] /= 3;
    for (const Capacities& capacities :
         {Capacities::balanced(c.num_rows, c.num_sites),
          Capacities::bounded(std::vector<SizeBounds>(
              c.num_sites, {c.num_rows / c.num_sites / 2, c.num_rows / c.num_sites + 5}))}) {
      const Solved solved = solve(*backend, costs, capacities);

      EXPECT_TRUE(solved.certificate.optimal());
      EXPECT_EQ(solved.cost(), network_simplex_cost(costs, capacities));
    }
  }
}

}  // namespace
}  // namespace moefy::test

#endif
