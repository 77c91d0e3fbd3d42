#include "moefy/backend/centroids.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "moefy/core/error.hpp"

namespace moefy {

double mean_share(int scale_log2, std::int64_t count) {
  return std::ldexp(1.0, -scale_log2) / static_cast<double>(count);
}

double SiteSums::share(std::int32_t site) const {
  return mean_share(scale_log2, count[static_cast<std::size_t>(site)]);
}

namespace {

double squared_distance(std::span<const float> from, std::span<const float> to) {
  double squared = 0;
  for (std::size_t l = 0; l < from.size(); ++l) {
    const double step = static_cast<double>(to[l]) - static_cast<double>(from[l]);
    squared += step * step;
  }
  return squared;
}

class HostCentroids final : public Centroids {
 public:
  void resize(std::size_t num_sites, std::size_t dim) override { values_.resize(num_sites, dim); }
  void assign(const RowsView& values) override {
    require(values.rows == values_.rows() && values.cols == values_.cols(), "a value for each");
    std::ranges::copy(values.on_host().values(), values_.values().begin());
  }
  RowsView view() const override { return values_.view(); }
  void read(MatrixView<float> out) const override {
    require(out.rows == values_.rows() && out.cols == values_.cols(), "room for each");
    std::ranges::copy(values_.values(), out.values().begin());
  }

  std::vector<std::int32_t> changed_sites(const Centroids& before) const override {
    const RowsView old = before.view();
    std::vector<std::int32_t> sites;
    for (std::size_t j = 0; j < values_.rows(); ++j) {
      if (std::memcmp(old.row(j).data(), values_.row(j).data(), old.cols * sizeof(float)) != 0) {
        sites.push_back(static_cast<std::int32_t>(j));
      }
    }
    return sites;
  }

  std::vector<double> squared_shifts(const Centroids& before) const override {
    const RowsView old = before.view();
    std::vector<double> shifts(values_.rows());
    for (std::size_t j = 0; j < shifts.size(); ++j) {
      shifts[j] = squared_distance(old.row(j), values_.row(j));
    }
    return shifts;
  }

  std::span<float> row(std::size_t j) { return values_.row(j); }

 private:
  Matrix<float> values_;
};

/// The centroid becomes sum · share; returns its squared shift.
double move_to_mean(std::span<const std::int64_t> sum, double share, std::span<float> centroid) {
  double shift = 0;
  for (std::size_t l = 0; l < centroid.size(); ++l) {
    const auto mean = static_cast<float>(static_cast<double>(sum[l]) * share);
    const double step = static_cast<double>(mean) - static_cast<double>(centroid[l]);
    shift += step * step;
    centroid[l] = mean;
  }
  return shift;
}

class HostSums final : public SiteSums {
 public:
  void clear(std::size_t num_sites, std::size_t dim, int scale_log2_in) override {
    values_.resize(num_sites, dim);
    std::ranges::fill(values_.values(), 0);
    count.assign(num_sites, 0);
    scale_log2 = scale_log2_in;
  }

  SumsView on_host(std::span<const std::int32_t> /*sites*/) override {
    return {values_.view(), count, scale_log2};
  }
  std::span<std::int64_t> in_place() override { return values_.values(); }

  std::vector<double> move_to_means(std::span<const std::int32_t> sites,
                                    Centroids& centroids) override {
    std::vector<double> shifts(sites.size());
    for (std::size_t a = 0; a < sites.size(); ++a) {
      const auto j = static_cast<std::size_t>(sites[a]);
      shifts[a] = move_to_mean(values_.row(j), share(sites[a]),
                               static_cast<HostCentroids&>(centroids).row(j));
    }
    return shifts;
  }

  Matrix<std::int64_t>& values() { return values_; }

 private:
  Matrix<std::int64_t> values_;
};

}  // namespace

std::unique_ptr<Centroids> make_host_centroids() { return std::make_unique<HostCentroids>(); }
std::unique_ptr<SiteSums> make_host_sums() { return std::make_unique<HostSums>(); }
Matrix<std::int64_t>& host_sums(SiteSums& sums) { return static_cast<HostSums&>(sums).values(); }

}  // namespace moefy
