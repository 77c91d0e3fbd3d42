#include <algorithm>
#include <cmath>

#include "moefy/core/error.hpp"
#include "moefy/report/map_diff.hpp"

namespace moefy {
namespace {

struct Margins {
  std::vector<std::int64_t> rows;
  std::vector<std::int64_t> cols;
  std::int64_t total = 0;
};

Margins margins_of(const Matrix<std::int64_t>& table) {
  Margins margins{std::vector<std::int64_t>(table.rows(), 0),
                  std::vector<std::int64_t>(table.cols(), 0), 0};
  for (std::size_t i = 0; i < table.rows(); ++i) {
    for (std::size_t j = 0; j < table.cols(); ++j) {
      margins.rows[i] += table.row(i)[j];
      margins.cols[j] += table.row(i)[j];
      margins.total += table.row(i)[j];
    }
  }
  return margins;
}

double entropy(std::span<const std::int64_t> counts, std::int64_t total) {
  double sum = 0;
  for (const std::int64_t count : counts) {
    if (count == 0) continue;
    const double share = static_cast<double>(count) / static_cast<double>(total);
    sum -= share * std::log(share);
  }
  return sum;
}

/// Contribution of `both` common neurons of groups of `a` and `b` neurons to the information.
double information_term(std::int64_t both, std::int64_t a, std::int64_t b, std::int64_t total) {
  const auto n = static_cast<double>(total);
  const auto common = static_cast<double>(both);
  return common / n * std::log(n * common / (static_cast<double>(a) * static_cast<double>(b)));
}

double mutual_information(const Matrix<std::int64_t>& table, const Margins& margins) {
  double sum = 0;
  for (std::size_t i = 0; i < table.rows(); ++i) {
    for (std::size_t j = 0; j < table.cols(); ++j) {
      const std::int64_t both = table.row(i)[j];
      if (both > 0) {
        sum += information_term(both, margins.rows[i], margins.cols[j], margins.total);
      }
    }
  }
  return sum;
}

/// Expected information of one pair of groups if the labels were dealt at random: the number of
/// common neurons is hypergeometric.
double expected_term(std::int64_t a, std::int64_t b, std::int64_t n,
                     const std::vector<double>& log_factorial) {
  const auto lf = [&](std::int64_t k) { return log_factorial[static_cast<std::size_t>(k)]; };
  double sum = 0;
  for (std::int64_t both = std::max<std::int64_t>(1, a + b - n); both <= std::min(a, b); ++both) {
    const double log_probability = lf(a) + lf(b) + lf(n - a) + lf(n - b) - lf(n) - lf(both) -
                                   lf(a - both) - lf(b - both) - lf(n - a - b + both);
    sum += information_term(both, a, b, n) * std::exp(log_probability);
  }
  return sum;
}

/// Sizes and how often they occur: balanced experts have one or two sizes, so few terms are needed.
std::vector<std::pair<std::int64_t, double>> count_sizes(std::vector<std::int64_t> sizes) {
  std::ranges::sort(sizes);
  std::vector<std::pair<std::int64_t, double>> counted;
  for (const std::int64_t size : sizes) {
    if (size == 0) continue;
    if (counted.empty() || counted.back().first != size) counted.emplace_back(size, 0);
    counted.back().second += 1;
  }
  return counted;
}

double expected_information(const Margins& margins) {
  std::vector<double> log_factorial(static_cast<std::size_t>(margins.total) + 1, 0.0);
  for (std::size_t k = 1; k < log_factorial.size(); ++k) {
    log_factorial[k] = log_factorial[k - 1] + std::log(static_cast<double>(k));
  }
  double sum = 0;
  const auto cols = count_sizes(margins.cols);
  for (const auto& [a, times_a] : count_sizes(margins.rows)) {
    for (const auto& [b, times_b] : cols) {
      sum += times_a * times_b * expected_term(a, b, margins.total, log_factorial);
    }
  }
  return sum;
}

}  // namespace

double adjusted_mutual_information(const Matrix<std::int64_t>& table) {
  const Margins margins = margins_of(table);
  if (margins.total == 0) return 1;
  const double mean_entropy =
      (entropy(margins.rows, margins.total) + entropy(margins.cols, margins.total)) / 2;
  const auto rows = count_sizes(margins.rows);
  const auto cols = count_sizes(margins.cols);
  const auto n = static_cast<double>(margins.total);
  const auto trivial = [n](const auto& sizes, std::int64_t size) {
    return sizes.size() == 1 && sizes[0].first == size &&
           sizes[0].second * static_cast<double>(size) == n;
  };
  // One group each, or every neuron alone in both: there is only one such labelling.
  if ((trivial(rows, margins.total) && trivial(cols, margins.total)) ||
      (trivial(rows, 1) && trivial(cols, 1))) {
    return 1;
  }
  const double expected = expected_information(margins);
  const double spread = mean_entropy - expected;
  if (spread == 0) return 0;
  return (mutual_information(table, margins) - expected) / spread;
}

}  // namespace moefy
