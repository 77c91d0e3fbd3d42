#include "moefy/jobs/bench_faster.hpp"

#include <algorithm>
#include <chrono>

#include "moefy/balance/balanced_kmeans.hpp"
#include "moefy/core/error.hpp"
#include "moefy/core/random.hpp"

namespace moefy {
namespace {

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const std::size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

void fill_uniform(std::uint64_t seed, std::uint64_t layer, Matrix<float>& rows) {
  RandomStream random(seed, layer, RandomPurpose::bench);
  for (float& value : rows.values()) value = static_cast<float>(random.next_word() >> 8) * 0x1p-24F;
}

/// Squared distances of all rows to their mean.
double total_squares(Backend& backend, const Matrix<float>& rows) {
  const std::vector<std::int32_t> one_site(rows.rows(), 0);
  return figures_of_labels(backend, rows.view(), one_site, 1).inertia;
}

double seconds_of(const BalancedKMeansResult& result, const std::string& phase) {
  for (const auto& [name, seconds] : result.seconds) {
    if (name == phase) return seconds;
  }
  return 0;
}

std::vector<std::pair<std::string, double>> median_phases(
    const std::vector<BalancedKMeansResult>& runs) {
  std::vector<std::pair<std::string, double>> phases;
  for (const auto& entry : runs.front().seconds) {
    std::vector<double> seconds;
    for (const BalancedKMeansResult& run : runs) seconds.push_back(seconds_of(run, entry.first));
    phases.emplace_back(entry.first, median(std::move(seconds)));
  }
  return phases;
}

BenchFasterRow bench_layer(Backend& backend, BalancedKMeans& clustering, const Matrix<float>& rows,
                           const BenchFasterSize& size, std::size_t layer, int repeats,
                           std::uint64_t seed) {
  BalancedKMeansConfig config;
  config.seed = seed;
  const Capacities capacities = Capacities::balanced(size.num_rows, size.num_sites);
  std::vector<BalancedKMeansResult> runs;
  std::vector<double> seconds;
  for (int repeat = 0; repeat < repeats; ++repeat) {
    const auto begin = std::chrono::steady_clock::now();
    runs.push_back(clustering.run(rows.view(), capacities, config, layer));
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - begin;
    seconds.push_back(elapsed.count());
  }
  BenchFasterRow row;
  row.layer = layer;
  row.seconds_min = *std::min_element(seconds.begin(), seconds.end());
  row.seconds_max = *std::max_element(seconds.begin(), seconds.end());
  row.seconds_median = median(std::move(seconds));
  row.phases = median_phases(runs);
  const BalancedKMeansResult& result = runs.front();
  row.inertia = result.inertia;
  row.relative_inertia = result.inertia / total_squares(backend, rows);
  row.duality_gap = result.duality_gap;
  row.iterations = result.trace.size();
  const double operations = 2.0 * static_cast<double>(result.exact_columns) *
                            static_cast<double>(size.num_rows) * static_cast<double>(size.dim);
  const double cost_seconds = seconds_of(result, "costs");
  row.gigaflops = cost_seconds > 0 ? operations / cost_seconds * 1e-9 : 0;
  return row;
}

}  // namespace

std::vector<BenchFasterRow> bench_faster(Backend& backend, const BenchFasterSize& size, int repeats,
                                         std::uint64_t seed) {
  require(repeats >= 1, "bench_faster repeats at least once");
  BalancedKMeans clustering(backend);
  Matrix<float> rows(size.num_rows, size.dim);
  std::vector<BenchFasterRow> result;
  for (std::size_t layer = 0; layer < size.num_layers; ++layer) {
    fill_uniform(seed, layer, rows);
    result.push_back(bench_layer(backend, clustering, rows, size, layer, repeats, seed));
  }
  return result;
}

}  // namespace moefy
