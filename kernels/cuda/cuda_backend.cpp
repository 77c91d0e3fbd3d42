#include "cuda/cuda_backend.hpp"

#include <numeric>

#include <fmt/format.h>

#include "moefy/core/error.hpp"

namespace moefy {
namespace {

std::string open_device(int device) {
  cuda::check(cudaSetDevice(device), fmt::format("choosing device {}", device));
  return fmt::format("cuda ({})", cuda_device(device).model);
}

}  // namespace

CudaBackend::CudaBackend(int device, std::size_t num_threads)
    : device_(device), name_(open_device(device)), threads_(num_threads), blas_(stream_) {}

void CudaBackend::enter() const { cuda::check(cudaSetDevice(device_), "choosing the device"); }

std::vector<std::int32_t> CudaBackend::all_columns(std::size_t count) {
  std::vector<std::int32_t> which(count);
  std::iota(which.begin(), which.end(), 0);
  return which;
}

const std::int32_t* CudaBackend::upload_labels(std::span<const std::int32_t> label) {
  stream_.upload(label, label_.resize(label.size()));
  return label_.data();
}

std::int32_t* CudaBackend::upload_prices(const CostView& q, std::span<const std::int32_t> prices) {
  require(prices.size() >= q.num_sites, "one price a site");
  padded_prices_.assign(prices.begin(), prices.begin() + static_cast<std::ptrdiff_t>(q.num_sites));
  padded_prices_.resize(q.stride, kNoSite);
  stream_.upload(std::span<const std::int32_t>(padded_prices_), prices_.resize(q.stride));
  return prices_.data();
}

}  // namespace moefy
