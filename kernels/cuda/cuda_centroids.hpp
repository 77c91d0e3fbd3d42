#pragma once

#include "cuda/runtime.hpp"
#include "cuda/sum_kernels.hpp"
#include "moefy/backend/centroids.hpp"

namespace moefy::cuda {

/// Centroids in device memory. Works on the stream of a backend.
class CudaCentroids final : public Centroids {
 public:
  CudaCentroids(int device, Stream& stream) : device_(device), stream_(stream) {}

  void resize(std::size_t num_sites, std::size_t dim) override;
  void assign(const RowsView& values) override;
  RowsView view() const override;
  void read(MatrixView<float> out) const override;
  std::vector<std::int32_t> changed_sites(const Centroids& before) const override;
  std::vector<double> squared_shifts(const Centroids& before) const override;

  float* data() { return values_.data(); }

 private:
  int device_;
  Stream& stream_;
  std::size_t num_sites_ = 0;
  std::size_t dim_ = 0;
  DeviceBuffer<float> values_;
  DeviceBuffer<double> shift_;      ///< [num_sites]
  DeviceBuffer<unsigned> changed_;  ///< [num_sites]
};

/// Sums in device memory; counts are known to the host.
class CudaSums final : public SiteSums {
 public:
  CudaSums(int device, Stream& stream) : device_(device), stream_(stream) {}

  void clear(std::size_t num_sites, std::size_t dim, int scale_log2_in) override;
  SumsView on_host(std::span<const std::int32_t> sites) override;
  std::span<std::int64_t> in_place() override;
  std::vector<double> move_to_means(std::span<const std::int32_t> sites,
                                    Centroids& centroids) override;

  unsigned long long* data() { return values_.data(); }

 private:
  int device_;
  Stream& stream_;
  std::size_t dim_ = 0;
  DeviceBuffer<unsigned long long> values_;  ///< two's complement
  DeviceBuffer<unsigned long long> some_;    ///< rows on their way to the host
  DeviceBuffer<std::int32_t> sites_;
  std::vector<SiteShare> share_;  ///< host memory on the way to shares_
  DeviceBuffer<SiteShare> shares_;
  DeviceBuffer<double> shift_;
  Matrix<std::int64_t> copy_;
};

}  // namespace moefy::cuda
