#include "cuda/cuda_backend.hpp"

#include <algorithm>

#include "moefy/core/error.hpp"

namespace moefy {

CostView CudaBackend::cost_buffer(std::size_t slot, std::size_t num_rows, std::size_t num_sites) {
  enter();
  CostView view;
  view.num_rows = num_rows;
  view.num_sites = num_sites;
  view.stride = (num_sites + kSiteAlignment - 1) / kSiteAlignment * kSiteAlignment;
  view.space = MemorySpace::device;
  CostSlot& own_slot = slots_.at(slot);
  view.data = own_slot.costs.resize(num_rows * view.stride);
  own_slot.copied = false;
  stream_.fill(view.data, 0, num_rows * view.stride);
  return view;
}

CudaBackend::CostSlot& CudaBackend::slot_of(const CostView& q) {
  const auto slot = std::ranges::find_if(
      slots_, [&](const CostSlot& candidate) { return candidate.costs.data() == q.data; });
  require(slot != slots_.end(), "the costs are in a buffer of this backend");
  return *slot;
}

CudaBackend::CostSlot& CudaBackend::written(const CostView& q) {
  CostSlot& slot = slot_of(q);
  slot.copied = false;
  return slot;
}

CostView CudaBackend::on_host(const CostView& q) {
  enter();
  CostSlot& slot = slot_of(q);
  if (!slot.copied) {
    slot.copy.resize(q.num_rows * q.stride);
    stream_.download(q.data, slot.copy);
    stream_.wait();
    slot.copied = true;
  }
  CostView copy = q;
  copy.data = slot.copy.data();
  copy.space = MemorySpace::host;
  return copy;
}

void CudaBackend::write_costs(MatrixView<const std::int32_t> costs, const CostView& q) {
  enter();
  require(costs.rows == q.num_rows && costs.cols == q.num_sites, "a cost for each row and site");
  CostSlot& slot = slot_of(q);
  slot.copy.resize(q.num_rows * q.stride);
  std::ranges::fill(slot.copy.span(), 0);
  for (std::size_t i = 0; i < q.num_rows; ++i) {
    std::ranges::copy(costs.row(i), slot.copy.data() + i * q.stride);
  }
  stream_.upload_pinned(std::span<const std::int32_t>(slot.copy.span()), q.data);
  stream_.wait();
  slot.copied = true;
}

void CudaBackend::copy_rows(const CostView& from, std::span<const std::int32_t> rows,
                            const CostView& to) {
  enter();
  require(rows.size() == to.num_rows && from.stride == to.stride, "one row of costs for each");
  written(to);
  stream_.upload(rows, rows_.resize(rows.size()));
  cuda::gather_rows(reinterpret_cast<const std::uint32_t*>(from.data), rows_.data(), rows.size(),
                    from.stride, reinterpret_cast<std::uint32_t*>(to.data), stream_.handle());
}

}  // namespace moefy
