#include "cuda/cuda_backend.hpp"

#include "moefy/core/error.hpp"

namespace moefy {
namespace {

cuda::DeviceCosts device_costs(const CostView& q) {
  require(q.space == MemorySpace::device, "the costs are in device memory");
  return {q.data, q.num_rows, q.num_sites, q.stride};
}

}  // namespace

void CudaBackend::best_sites(const CostView& q, std::span<const std::int32_t> prices,
                             bool with_margins, SiteChoice& choice) {
  enter();
  const std::size_t n = q.num_rows;
  cuda::DeviceChoice found;
  found.label = label_.resize(n);
  found.count = count_.resize(q.num_sites);
  if (with_margins) {
    found.best = best_.resize(n);
    found.margin = margin_.resize(n);
  }
  stream_.fill(count_.data(), 0, q.num_sites);
  cuda::best_sites(device_costs(q), upload_prices(prices), found, stream_.handle());
  const auto label = stream_.download<std::int32_t>(found.label, n);
  const auto best = stream_.download<std::int32_t>(found.best, with_margins ? n : 0);
  const auto margin = stream_.download<std::int32_t>(found.margin, with_margins ? n : 0);
  const auto count = stream_.download<unsigned long long>(found.count, q.num_sites);
  stream_.wait();
  choice.label.assign(label.begin(), label.end());
  choice.best.assign(best.begin(), best.end());
  choice.margin.assign(margin.begin(), margin.end());
  choice.count.assign(count.begin(), count.end());
}

void CudaBackend::smallest_moves(const CostView& q, std::span<const std::int32_t> label,
                                 std::span<std::int32_t> key, std::span<std::int32_t> row) {
  enter();
  const std::size_t size = q.num_sites * q.stride;
  constexpr unsigned long long kEmpty = ~0ULL;
  stream_.fill(moves_.resize(size), 0xff, size);
  cuda::smallest_moves(device_costs(q), upload_labels(label), moves_.data(), stream_.handle());
  const auto least = stream_.download<unsigned long long>(moves_.data(), size);
  stream_.wait();
  for (std::size_t pair = 0; pair < size; ++pair) {
    const bool empty = least[pair] == kEmpty;
    const auto move = static_cast<std::int64_t>(least[pair] >> 32) - cuda::kMoveOffset;
    key[pair] = empty ? kNoSite : static_cast<std::int32_t>(move);
    row[pair] = empty ? -1 : static_cast<std::int32_t>(least[pair] & 0xffffffffU);
  }
}

CertificateSums CudaBackend::certificate_sums(const CostView& q,
                                              std::span<const std::int32_t> label,
                                              std::span<const std::int32_t> prices) {
  enter();
  stream_.fill(certificate_.resize(1), 0, 1);
  cuda::certificate_sums(device_costs(q), upload_labels(label), upload_prices(prices),
                         certificate_.data(), stream_.handle());
  const auto copy = stream_.download<cuda::DeviceCertificate>(certificate_.data(), 1);
  stream_.wait();
  const cuda::DeviceCertificate& found = copy[0];
  CertificateSums sums;
  sums.cost = static_cast<std::int64_t>(found.cost);
  sums.row_minima = static_cast<std::int64_t>(found.row_minima);
  sums.unconstrained = static_cast<std::int64_t>(found.unconstrained);
  if (found.worst != 0) {
    sums.worst = static_cast<std::int64_t>(found.worst >> 32);
    sums.worst_row = static_cast<std::int64_t>(0xffffffffU - (found.worst & 0xffffffffU));
  }
  return sums;
}

}  // namespace moefy
