#include "moefy/jobs/bench_assign.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

#include "moefy/balance/assignment.hpp"
#include "moefy/core/error.hpp"
#include "moefy/core/matrix.hpp"
#include "moefy/core/random.hpp"
#include "moefy/core/stopwatch.hpp"
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

/// Distances in fp64 by plain loops, so that instances do not depend on a backend's arithmetic.
Matrix<double> squared_distances(const Instance& instance, ThreadPool& threads) {
  Matrix<double> distance(instance.rows.rows(), instance.centroids.rows());
  threads.for_each(distance.rows(), [&](std::size_t i) {
    for (std::size_t j = 0; j < distance.cols(); ++j) {
      distance.row(i)[j] = squared_distance(instance.rows.row(i), instance.centroids.row(j));
    }
  });
  return distance;
}

/// What makes the largest of these a fixed-point cost.
double scale_of(const Matrix<double>& distance) {
  const double largest = *std::ranges::max_element(distance.values());
  return largest > 0 ? static_cast<double>(kMaxCost) / std::exp2(std::ceil(std::log2(largest)))
                     : 1.0;
}

CostView write_distances(Backend& backend, std::size_t slot, const Matrix<double>& distance,
                         double scale) {
  Matrix<std::int32_t> costs(distance.rows(), distance.cols());
  std::ranges::transform(distance.values(), costs.values().begin(), [scale](double value) {
    return static_cast<std::int32_t>(
        std::llrint(std::min(value * scale, static_cast<double>(kMaxCost))));
  });
  const CostView q = backend.cost_buffer(slot, distance.rows(), distance.cols());
  backend.write_costs(costs.view(), q);
  return q;
}

void check_size(const BenchAssignSize& size) {
  require(size.num_rows >= size.num_sites && size.num_sites >= 1 && size.dim >= 1,
          "a bench instance has at least as many rows as sites");
}

void move_to_means(std::span<const std::int32_t> label, Instance& instance) {
  Matrix<double> sum(instance.centroids.rows(), instance.centroids.cols());
  std::ranges::fill(sum.values(), 0.0);
  std::vector<double> count(sum.rows(), 0.0);
  for (std::size_t i = 0; i < label.size(); ++i) {
    const auto j = static_cast<std::size_t>(label[i]);
    count[j] += 1;
    for (std::size_t l = 0; l < sum.cols(); ++l)
      sum.row(j)[l] += static_cast<double>(instance.rows.row(i)[l]);
  }
  for (std::size_t j = 0; j < sum.rows(); ++j) {
    for (std::size_t l = 0; l < sum.cols(); ++l)
      instance.centroids.row(j)[l] = static_cast<float>(sum.row(j)[l] / count[j]);
  }
}

/// One instance, and what is measured of it.
class AssignBench {
 public:
  AssignBench(Backend& backend, const BenchAssignSize& size, int repeats, bool check,
              std::uint64_t seed)
      : backend_(backend),
        size_(size),
        repeats_(repeats),
        check_(check),
        instance_(make_instance(size, seed)),
        capacities_(Capacities::exact(equal_sizes(size.num_rows, size.num_sites))),
        all_rows_(size.num_rows),
        price_(size.num_sites),
        label_(size.num_rows) {
    std::iota(all_rows_.begin(), all_rows_.end(), 0);
    const Matrix<double> distance = squared_distances(instance_, backend.threads());
    scale_ = scale_of(distance);
    source_ = write_distances(backend, 1, distance, scale_);
    q_ = backend.cost_buffer(0, size.num_rows, size.num_sites);
  }

  BenchAssignRow time_cold() {
    const std::vector<std::int32_t> zeros(size_.num_sites, 0);
    return time(false, zeros, [&] {
      AssignmentSolver solver(backend_);
      return solver.solve(q_, capacities_, false, price_, label_);
    });
  }

  BenchAssignRow time_warm() {
    AssignmentSolver solver(backend_);
    std::ranges::fill(price_, 0);
    renew_costs();
    solver.solve(q_, capacities_, true, price_, label_);
    const std::vector<std::int32_t> prices_before = price_;
    move_to_means(label_, instance_);
    source_ =
        write_distances(backend_, 1, squared_distances(instance_, backend_.threads()), scale_);
    const auto step = [&] {
      const SolverStatistics statistics = solver.solve(q_, capacities_, true, price_, label_);
      require(check_certificate(backend_, q_, capacities_, price_, label_).optimal(),
              "a solved assignment is optimal");
      return statistics;
    };
    price_ = prices_before;
    renew_costs();
    step();  // buffers are there afterwards
    return time(true, prices_before, step);
  }

 private:
  /// As an E-step finds them: just computed where the backend computes, so that a solver which
  /// wants them on the host pays for the copy. Done when it returns.
  void renew_costs() {
    backend_.copy_rows(source_, all_rows_, q_);
    backend_.total_cost(q_, label_);
  }

  BenchAssignRow time(bool warm, std::span<const std::int32_t> start_prices,
                      const std::function<SolverStatistics()>& work) {
    BenchAssignRow result;
    result.size = size_;
    result.warm = warm;
    std::vector<double> seconds;
    for (int repeat = 0; repeat < repeats_; ++repeat) {
      std::ranges::copy(start_prices, price_.begin());
      renew_costs();
      const Stopwatch stopwatch;
      const SolverStatistics statistics = work();
      seconds.push_back(stopwatch.seconds());
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
    result.cost = backend_.total_cost(q_, label_);
    if (check_) {
      const Certificate certificate = check_certificate(backend_, q_, capacities_, price_, label_);
      result.gap = static_cast<std::int64_t>(certificate.gap);
      result.optimal = certificate.optimal();
    }
    return result;
  }

  Backend& backend_;
  BenchAssignSize size_;
  int repeats_;
  bool check_;
  Instance instance_;
  Capacities capacities_;
  std::vector<std::int32_t> all_rows_;
  std::vector<std::int32_t> price_;
  std::vector<std::int32_t> label_;
  double scale_ = 1;
  CostView source_;
  CostView q_;
};

}  // namespace

std::vector<BenchAssignSize> default_bench_assign_sizes() {
  return {{11008, 16, false}, {28672, 32, false}, {14336, 64, false},
          {53248, 64, false}, {14336, 64, true},  {14336, 256, true}};
}

CostView make_bench_costs(Backend& backend, const BenchAssignSize& size, std::uint64_t seed) {
  check_size(size);
  const Matrix<double> distance = squared_distances(make_instance(size, seed), backend.threads());
  return write_distances(backend, 0, distance, scale_of(distance));
}

std::vector<BenchAssignRow> bench_assign(Backend& backend, std::span<const BenchAssignSize> sizes,
                                         int repeats, bool check, std::uint64_t seed) {
  require(repeats >= 1, "at least one repeat");
  std::vector<BenchAssignRow> rows;
  for (const BenchAssignSize& size : sizes) {
    check_size(size);
    AssignBench bench(backend, size, repeats, check, seed);
    rows.push_back(bench.time_cold());
    rows.push_back(bench.time_warm());
  }
  return rows;
}

}  // namespace moefy
