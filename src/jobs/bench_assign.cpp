#include "moefy/jobs/bench_assign.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "moefy/balance/assignment.hpp"
#include "moefy/core/error.hpp"
#include "moefy/core/matrix.hpp"
#include "moefy/core/random.hpp"
#include "moefy/partition/partition.hpp"

namespace moefy {
namespace {

constexpr std::size_t kRowsPerCentroid = 32;

// Sites drawn with weights 1, 1/2, 1/3, …
class SkewedSites {
 public:
  explicit SkewedSites(std::size_t num_sites) {
    double sum = 0;
    for (std::size_t j = 0; j < num_sites; ++j) {
      sum += 1.0 / static_cast<double>(1 + j);
      cumulative_.push_back(sum);
    }
  }
  std::size_t draw(RandomStream& random) const {
    const double at = random.next_unit() * cumulative_.back();
    const auto site = std::ranges::upper_bound(cumulative_, at) - cumulative_.begin();
    return std::min(static_cast<std::size_t>(site), cumulative_.size() - 1);
  }

 private:
  std::vector<double> cumulative_;
};

struct Instance {
  Matrix<float> rows;
  Matrix<float> centroids;
};

Instance make_instance(const BenchAssignSize& size, std::uint64_t seed) {
  RandomStream random(seed, size.num_rows * size.num_sites, RandomPurpose::bench,
                      size.skewed ? 1 : 0);
  Instance instance{{size.num_rows, size.dim}, {size.num_sites, size.dim}};
  std::ranges::generate(instance.rows.values(), [&] { return random.next_normal(); });
  std::ranges::fill(instance.centroids.values(), 0.0F);
  if (size.skewed) {
    const SkewedSites sites(size.num_sites);
    for (float& value : instance.centroids.values()) value = 0.35F * random.next_normal();
    for (std::size_t i = 0; i < size.num_rows; ++i) {
      const auto centre = instance.centroids.row(sites.draw(random));
      for (std::size_t l = 0; l < size.dim; ++l) instance.rows.row(i)[l] += centre[l];
    }
    return instance;
  }
  for (std::size_t j = 0; j < size.num_sites; ++j) {
    for (std::size_t t = 0; t < kRowsPerCentroid; ++t) {
      const auto row = instance.rows.row(random.next_below(size.num_rows));
      for (std::size_t l = 0; l < size.dim; ++l) {
        instance.centroids.row(j)[l] += row[l] / static_cast<float>(kRowsPerCentroid);
      }
    }
  }
  return instance;
}

double squared_distance(std::span<const float> a, std::span<const float> b) {
  double sum = 0;
  for (std::size_t l = 0; l < a.size(); ++l) {
    const double difference = static_cast<double>(a[l]) - static_cast<double>(b[l]);
    sum += difference * difference;
  }
  return sum;
}

BenchAssignRow time_one(Backend& backend, const BenchAssignSize& size, int repeats, bool check,
                        std::uint64_t seed) {
  using Clock = std::chrono::steady_clock;
  const CostView q = make_bench_costs(backend, size, seed);
  const Capacities capacities = Capacities::exact(equal_sizes(size.num_rows, size.num_sites));
  BenchAssignRow result;
  result.size = size;
  std::vector<double> seconds;
  std::vector<std::int32_t> price(size.num_sites);
  std::vector<std::int32_t> label(size.num_rows);
  for (int repeat = 0; repeat < repeats; ++repeat) {
    std::ranges::fill(price, 0);
    const Clock::time_point start = Clock::now();
    AssignmentSolver solver(backend);
    const SolverStatistics statistics = solver.solve(q, capacities, false, price, label);
    seconds.push_back(std::chrono::duration<double>(Clock::now() - start).count());
    result.surplus = statistics.surplus;
    result.price_passes = statistics.price_passes;
    result.auction_rounds = statistics.auction_rounds;
    result.auction_bids = statistics.auction_bids;
    result.augmentations = statistics.augmentations;
  }
  std::ranges::sort(seconds);
  result.seconds_min = seconds.front();
  result.seconds_median = seconds[seconds.size() / 2];
  result.seconds_max = seconds.back();
  for (std::size_t i = 0; i < size.num_rows; ++i) {
    result.cost += q.row(i)[static_cast<std::size_t>(label[i])];
  }
  if (check) {
    const Certificate certificate = check_certificate(backend, q, capacities, price, label);
    result.gap = static_cast<std::int64_t>(certificate.gap);
    result.optimal = certificate.optimal();
  }
  return result;
}

}  // namespace

std::vector<BenchAssignSize> default_bench_assign_sizes() {
  return {{11008, 16, false}, {28672, 32, false}, {14336, 64, false},
          {53248, 64, false}, {14336, 64, true},  {14336, 256, true}};
}

CostView make_bench_costs(Backend& backend, const BenchAssignSize& size, std::uint64_t seed) {
  require(size.num_rows >= size.num_sites && size.num_sites >= 1 && size.dim >= 1,
          "a bench instance has at least as many rows as sites");
  const Instance instance = make_instance(size, seed);
  // Distances in fp64 by plain loops, so that instances do not depend on a backend's arithmetic.
  Matrix<double> distance(size.num_rows, size.num_sites);
  backend.threads().for_each(size.num_rows, [&](std::size_t i) {
    for (std::size_t j = 0; j < size.num_sites; ++j) {
      distance.row(i)[j] = squared_distance(instance.rows.row(i), instance.centroids.row(j));
    }
  });
  const double largest = *std::ranges::max_element(distance.values());
  const double scale =
      largest > 0 ? static_cast<double>(kMaxCost) / std::exp2(std::ceil(std::log2(largest))) : 1.0;
  Matrix<std::int32_t> costs(size.num_rows, size.num_sites);
  std::ranges::transform(distance.values(), costs.values().begin(), [scale](double value) {
    return static_cast<std::int32_t>(std::llrint(value * scale));
  });
  const CostView q = backend.cost_buffer(0, size.num_rows, size.num_sites);
  backend.write_costs(costs.view(), q);
  return q;
}

std::vector<BenchAssignRow> bench_assign(Backend& backend, std::span<const BenchAssignSize> sizes,
                                         int repeats, bool check, std::uint64_t seed) {
  require(repeats >= 1, "at least one repeat");
  std::vector<BenchAssignRow> rows;
  for (const BenchAssignSize& size : sizes) {
    rows.push_back(time_one(backend, size, repeats, check, seed));
  }
  return rows;
}

}  // namespace moefy
