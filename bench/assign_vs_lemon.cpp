// Cold exact assignments against LEMON's network simplex on the same costs, one JSON line a shape:
//   bench_assign_vs_lemon [INSTRUCTION_SET [REPEATS [SEED]]]
#include <fmt/format.h>
#include <lemon/network_simplex.h>
#include <lemon/static_graph.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>
#include <utility>
#include <vector>

#include "moefy/jobs/bench_assign.hpp"
#include "moefy/partition/partition.hpp"

namespace moefy {
namespace {

struct SimplexRun {
  double seconds = 0;
  std::int64_t cost = 0;
  bool optimal = false;
};

// Rows supply one unit each to sites that take their size. Building the graph is not counted.
SimplexRun run_network_simplex(const CostView& q) {
  using Graph = lemon::StaticDigraph;
  const auto num_rows = static_cast<int>(q.num_rows);
  const auto num_sites = static_cast<int>(q.num_sites);
  std::vector<std::pair<int, int>> arcs;
  arcs.reserve(q.num_rows * q.num_sites);
  for (int i = 0; i < num_rows; ++i) {
    for (int j = 0; j < num_sites; ++j) arcs.emplace_back(i, num_rows + j);
  }
  Graph graph;
  graph.build(num_rows + num_sites, arcs.begin(), arcs.end());
  Graph::ArcMap<std::int64_t> cost(graph);
  Graph::NodeMap<std::int64_t> supply(graph, 1);
  for (int a = 0; a < num_rows * num_sites; ++a) {
    cost[graph.arc(a)] = q.row(static_cast<std::size_t>(a / num_sites))[a % num_sites];
  }
  const auto sizes = equal_sizes(q.num_rows, q.num_sites);
  for (int j = 0; j < num_sites; ++j) {
    supply[graph.node(num_rows + j)] =
        -static_cast<std::int64_t>(sizes[static_cast<std::size_t>(j)]);
  }
  const auto start = std::chrono::steady_clock::now();
  lemon::NetworkSimplex<Graph, std::int64_t> simplex(graph);
  simplex.costMap(cost).supplyMap(supply);
  SimplexRun run;
  run.optimal = simplex.run() == simplex.OPTIMAL;
  run.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  run.cost = simplex.totalCost<std::int64_t>();
  return run;
}

bool compare(Backend& backend, const BenchAssignSize& size, int repeats, std::uint64_t seed) {
  const BenchAssignRow ours = bench_assign(backend, {&size, 1}, repeats, true, seed).front();
  const SimplexRun theirs = run_network_simplex(make_bench_costs(backend, size, seed));
  const bool equal = ours.optimal && theirs.optimal && ours.cost == theirs.cost;
  fmt::print(
      "{{\"backend\":\"{}\",\"n\":{},\"k\":{},\"skewed\":{},\"seconds\":{:.6f},"
      "\"seconds_median\":{:.6f},\"passes\":{},\"augmentations\":{},\"lemon_seconds\":{:.6f},"
      "\"ratio\":{:.1f},\"cost\":{},\"equal\":{}}}\n",
      backend.name(), size.num_rows, size.num_sites, size.skewed, ours.seconds_min,
      ours.seconds_median, ours.price_passes, ours.augmentations, theirs.seconds,
      theirs.seconds / ours.seconds_min, ours.cost, equal);
  std::fflush(stdout);
  return equal;
}

}  // namespace
}  // namespace moefy

int main(int argc, char** argv) {
  try {
    const auto backend = moefy::make_cpu_backend(1, argc > 1 ? argv[1] : "auto");
    const int repeats = argc > 2 ? std::atoi(argv[2]) : 9;
    const std::uint64_t seed = argc > 3 ? std::strtoull(argv[3], nullptr, 10) : 0;
    bool equal = true;
    for (const moefy::BenchAssignSize& size : moefy::default_bench_assign_sizes()) {
      equal = moefy::compare(*backend, size, repeats, seed) && equal;
    }
    return equal ? 0 : 1;
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 2;
  }
}
