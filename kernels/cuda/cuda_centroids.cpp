#include "cuda/cuda_centroids.hpp"

#include <algorithm>

#include "cuda/cuda_matrix.hpp"
#include "cuda/row_kernels.hpp"
#include "moefy/core/error.hpp"

namespace moefy::cuda {
namespace {

void choose(int device) { check(cudaSetDevice(device), "choosing the device"); }

std::vector<double> shifts_of(Stream& stream, const DeviceBuffer<double>& shift,
                              std::size_t count) {
  const auto values = stream.download<double>(shift.data(), count);
  stream.wait();
  return {values.begin(), values.end()};
}

}  // namespace

void CudaCentroids::resize(std::size_t num_sites, std::size_t dim) {
  choose(device_);
  num_sites_ = num_sites;
  dim_ = dim;
  values_.resize(num_sites * dim);
  shift_.resize(num_sites);
  changed_.resize(num_sites);
}

void CudaCentroids::assign(const RowsView& values) {
  choose(device_);
  require(values.rows == num_sites_ && values.cols == dim_, "a value for each");
  if (values.space == MemorySpace::device) {
    stream_.copy_on_device(values.data, values_.data(), values.size());
  } else {
    stream_.upload(values.on_host().values(), values_.data());
  }
}

RowsView CudaCentroids::view() const {
  return {values_.data(), num_sites_, dim_, MemorySpace::device};
}

void CudaCentroids::read(MatrixView<float> out) const {
  require(out.rows == num_sites_ && out.cols == dim_, "room for each");
  choose(device_);
  download_to(stream_, values_.data(), out.values());
}

std::vector<std::int32_t> CudaCentroids::changed_sites(const Centroids& before) const {
  choose(device_);
  mark_changed(before.view().data, values_.data(), num_sites_, dim_, changed_.data(),
               stream_.handle());
  const auto changed = stream_.download<unsigned>(changed_.data(), num_sites_);
  stream_.wait();
  std::vector<std::int32_t> sites;
  for (std::size_t j = 0; j < num_sites_; ++j) {
    if (changed[j] != 0) sites.push_back(static_cast<std::int32_t>(j));
  }
  return sites;
}

std::vector<double> CudaCentroids::squared_shifts(const Centroids& before) const {
  choose(device_);
  cuda::squared_shifts(before.view().data, values_.data(), num_sites_, dim_, shift_.data(),
                       stream_.handle());
  return shifts_of(stream_, shift_, num_sites_);
}

void CudaSums::clear(std::size_t num_sites, std::size_t dim, int scale_log2_in) {
  choose(device_);
  count.assign(num_sites, 0);
  scale_log2 = scale_log2_in;
  dim_ = dim;
  values_.resize(num_sites * dim);
  sites_.resize(num_sites);
  shares_.resize(num_sites);
  shift_.resize(num_sites);
  stream_.fill(values_.data(), 0, values_.size());
}

SumsView CudaSums::on_host(std::span<const std::int32_t> sites) {
  choose(device_);
  copy_.resize(count.size(), dim_);
  const unsigned long long* from = values_.data();
  if (sites.size() < count.size()) {
    // Rows of 8-byte values as rows of twice as many words.
    some_.resize(sites.size() * dim_);
    stream_.upload(sites, sites_.data());
    gather_rows(reinterpret_cast<const std::uint32_t*>(values_.data()), sites_.data(), sites.size(),
                2 * dim_, reinterpret_cast<std::uint32_t*>(some_.data()), stream_.handle());
    from = some_.data();
  }
  // The first rows of the copy, and from there to their places, the last one first.
  const std::span<std::int64_t> values = copy_.values().first(sites.size() * dim_);
  download_to(stream_, reinterpret_cast<const std::int64_t*>(from), values);
  for (std::size_t a = sites.size(); a-- > 0;) {
    const auto j = static_cast<std::size_t>(sites[a]);
    if (j != a) std::ranges::copy(copy_.row(a), copy_.row(j).begin());
  }
  return {copy_.view(), count, scale_log2};
}

std::span<std::int64_t> CudaSums::in_place() {
  choose(device_);
  stream_.wait();
  return {reinterpret_cast<std::int64_t*>(values_.data()), values_.size()};
}

std::vector<double> CudaSums::move_to_means(std::span<const std::int32_t> sites,
                                            Centroids& centroids) {
  if (sites.empty()) return {};
  choose(device_);
  share_.clear();
  for (const std::int32_t site : sites) share_.push_back({share(site), site});
  stream_.upload(std::span<const SiteShare>(share_), shares_.data());
  cuda::move_to_means(values_.data(), dim_, shares_.data(), sites.size(),
                      static_cast<CudaCentroids&>(centroids).data(), shift_.data(),
                      stream_.handle());
  return shifts_of(stream_, shift_, sites.size());
}

}  // namespace moefy::cuda
