#include "cuda/cuda_backend.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include <fmt/format.h>

#include "moefy/core/error.hpp"

namespace moefy {
namespace {

using cuda::check;

struct CudaPoints final : Points {
  cuda::DeviceBuffer<float> x;                // [num_rows, dim]
  cuda::DeviceBuffer<float> squared_norm;     // [num_rows]
  cuda::DeviceBuffer<float> step;             // of the int8 values of a row
  cuda::DeviceBuffer<std::int8_t> quantized;  // [num_rows, padded_dim(dim)]
};

const CudaPoints& own(const Points& points) { return static_cast<const CudaPoints&>(points); }

cuda::DeviceCosts device_costs(const CostView& q) {
  require(q.space == MemorySpace::device, "the costs are in device memory");
  return {q.data, q.num_rows, q.num_sites, q.stride};
}

std::string open_device(int device) {
  check(cudaSetDevice(device), fmt::format("choosing device {}", device));
  return fmt::format("cuda ({})", cuda_device(device).model);
}

std::vector<std::int32_t> all_of(std::size_t count) {
  std::vector<std::int32_t> which(count);
  std::iota(which.begin(), which.end(), 0);
  return which;
}

/// What changed between two labellings, by site.
struct LabelChanges {
  std::vector<std::int32_t> entry;  // see cuda::add_rows
  std::vector<cuda::SumSegment> segment;
  std::vector<std::size_t> site;  // of every row of the sums
};

LabelChanges find_changes(RowSelection selection, std::span<const std::int32_t> old_label,
                          std::span<const std::int32_t> new_label, SiteSums& sums) {
  // Short enough that a site with most of the rows still keeps many blocks busy.
  constexpr std::int32_t kSegmentRows = 256;
  std::vector<std::vector<std::int32_t>> entries(sums.count.size());
  for (std::size_t a = 0; a < new_label.size(); ++a) {
    const std::int32_t before = old_label.empty() ? -1 : old_label[a];
    const std::int32_t after = new_label[a];
    if (before == after) continue;
    const auto row = static_cast<std::int32_t>(selection.global(a));
    if (before >= 0) {
      entries[static_cast<std::size_t>(before)].push_back(~row);
      --sums.count[static_cast<std::size_t>(before)];
    }
    if (after >= 0) {
      entries[static_cast<std::size_t>(after)].push_back(row);
      ++sums.count[static_cast<std::size_t>(after)];
    }
  }
  LabelChanges changes;
  for (std::size_t j = 0; j < entries.size(); ++j) {
    if (entries[j].empty()) continue;
    const auto target = static_cast<std::int32_t>(changes.site.size());
    const auto begin = static_cast<std::int32_t>(changes.entry.size());
    changes.site.push_back(j);
    changes.entry.insert(changes.entry.end(), entries[j].begin(), entries[j].end());
    const auto end = static_cast<std::int32_t>(changes.entry.size());
    for (std::int32_t first = begin; first < end; first += kSegmentRows) {
      changes.segment.push_back({target, first, std::min(first + kSegmentRows, end)});
    }
  }
  return changes;
}

}  // namespace

void CudaBackend::Columns::resize(std::size_t count, std::size_t dim) {
  vectors.resize(count * dim);
  squared_norm.resize(count);
  norm.resize(count);
  step.resize(count);
  quantized.resize(count * cuda::padded_dim(dim));
}

CudaBackend::CudaBackend(int device, std::size_t num_threads)
    : device_(device), name_(open_device(device)), threads_(num_threads) {}

void CudaBackend::enter() const { check(cudaSetDevice(device_), "choosing the device"); }

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
  stream_.upload(std::span<const std::int32_t>(slot.copy.span()), q.data);
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

std::unique_ptr<Points> CudaBackend::make_points() { return std::make_unique<CudaPoints>(); }

void CudaBackend::load(Points& points, MatrixView<const float> rows, bool quantize) {
  enter();
  auto& target = static_cast<CudaPoints&>(points);
  const std::size_t n = rows.rows;
  target.rows = rows;
  stream_.upload(std::span<const float>(rows.values()), target.x.resize(rows.size()));

  cuda::RowFigures figures;
  figures.squared_norm = row_norm_.resize(n);
  figures.max_abs = row_max_.resize(n);
  figures.first_bad = first_bad_.resize(1);
  target.squared_norm.resize(n);
  if (quantize) {
    figures.step = target.step.resize(n);
    figures.quantized = target.quantized.resize(n * cuda::padded_dim(rows.cols));
  }
  stream_.fill(first_bad_.data(), 0xff, 1);
  cuda::measure_rows(target.x.data(), n, rows.cols, cuda::kLargestRowUnit, figures,
                     stream_.handle());
  cuda::narrow(row_norm_.data(), nullptr, n, target.squared_norm.data(), stream_.handle());
  const auto norm = stream_.download(row_norm_.data(), n);
  const auto max_abs = stream_.download(row_max_.data(), n);
  const auto bad = stream_.download(first_bad_.data(), 1);
  stream_.wait();

  if (bad[0] != ~std::uint64_t{0}) {
    const std::size_t row = bad[0] >> 32;
    const std::size_t column = bad[0] & 0xffffffffU;
    throw InputError(fmt::format("row {}, column {} is {}", row, column, rows.row(row)[column]));
  }
  target.max_squared_norm = n == 0 ? 0 : *std::ranges::max_element(norm);
  target.sum_squared_norm = std::accumulate(norm.begin(), norm.end(), 0.0);
  target.max_abs = n == 0 ? 0 : *std::ranges::max_element(max_abs);
  target.zero_rows = std::ranges::count(norm, 0.0);
}

void CudaBackend::copy_quantized(const Points& from, std::span<const std::int32_t> rows,
                                 Points& to) {
  enter();
  const CudaPoints& source = own(from);
  auto& target = static_cast<CudaPoints&>(to);
  const std::size_t n = rows.size();
  const std::size_t padded = cuda::padded_dim(from.rows.cols);
  target.rows = {nullptr, n, from.rows.cols};
  stream_.upload(rows, rows_.resize(n));
  const auto gather = [&](const auto* values, std::size_t bytes_a_row, auto* out) {
    cuda::gather_rows(reinterpret_cast<const std::uint32_t*>(values), rows_.data(), n,
                      bytes_a_row / sizeof(std::uint32_t), reinterpret_cast<std::uint32_t*>(out),
                      stream_.handle());
  };
  gather(source.squared_norm.data(), sizeof(float), target.squared_norm.resize(n));
  gather(source.step.data(), sizeof(float), target.step.resize(n));
  gather(source.quantized.data(), padded, target.quantized.resize(n * padded));
}

void CudaBackend::upload_columns(MatrixView<const float> centroids,
                                 std::span<const std::int32_t> which, Columns& columns) {
  const std::size_t dim = centroids.cols;
  columns.resize(which.size(), dim);
  if (which.size() == centroids.rows) {
    stream_.upload(std::span<const float>(centroids.values()), columns.vectors.data());
    return;
  }
  columns.packed.clear();
  for (const std::int32_t j : which) {
    const auto vector = centroids.row(static_cast<std::size_t>(j));
    columns.packed.insert(columns.packed.end(), vector.begin(), vector.end());
  }
  stream_.upload(std::span<const float>(columns.packed), columns.vectors.data());
}

cuda::CostColumns CudaBackend::cost_columns(std::span<const std::int32_t> which, int scale_log2,
                                            const CostView& q) {
  written(q);
  stream_.upload(which, which_.resize(which.size()));
  return {which_.data(), q.data, q.stride, std::ldexp(1.0F, scale_log2)};
}

void CudaBackend::costs(const Points& points, MatrixView<const float> centroids, int scale_log2,
                        std::span<const std::int32_t> columns, const CostView& q) {
  enter();
  const CudaPoints& x = own(points);
  upload_columns(centroids, columns, columns_);
  cuda::RowFigures figures;
  figures.squared_norm = columns_.squared_norm.data();
  cuda::measure_rows(columns_.vectors.data(), columns.size(), centroids.cols,
                     cuda::kLargestColumnUnit, figures, stream_.handle());
  cuda::narrow(columns_.squared_norm.data(), nullptr, columns.size(), columns_.norm.data(),
               stream_.handle());
  cuda::exact_costs({q.num_rows, columns.size(), centroids.cols, {}}, x.x.data(),
                    x.squared_norm.data(), columns_.vectors.data(), columns_.norm.data(),
                    cost_columns(columns, scale_log2, q), stream_.handle());
}

void CudaBackend::approximate_costs(const Points& points, RowSelection selection,
                                    MatrixView<const float> centroids, int scale_log2,
                                    const CostView& q) {
  enter();
  const CudaPoints& x = own(points);
  require(x.step.size() == x.rows.rows, "points were loaded without int8 rows");
  const std::vector<std::int32_t> which = all_of(centroids.rows);
  upload_columns(centroids, which, columns_);
  cuda::RowFigures figures;
  figures.squared_norm = columns_.squared_norm.data();
  figures.step = columns_.step.data();
  figures.quantized = columns_.quantized.data();
  cuda::measure_rows(columns_.vectors.data(), which.size(), centroids.cols,
                     cuda::kLargestColumnUnit, figures, stream_.handle());
  cuda::narrow(columns_.squared_norm.data(), nullptr, which.size(), columns_.norm.data(),
               stream_.handle());
  cuda::approximate_costs(
      {q.num_rows, which.size(), centroids.cols, selection},
      {x.quantized.data(), x.step.data(), columns_.quantized.data(), columns_.step.data()},
      x.squared_norm.data(), columns_.norm.data(), cost_columns(which, scale_log2, q),
      stream_.handle());
}

void CudaBackend::changed_costs(const Points& points, MatrixView<const float> base_centroids,
                                MatrixView<const float> centroids, int scale_log2,
                                std::span<const std::int32_t> columns, bool copy_others,
                                const CostView& base, const CostView& q) {
  enter();
  const CudaPoints& x = own(points);
  const std::size_t count = columns.size();
  const std::size_t dim = centroids.cols;
  written(q);
  if (copy_others) stream_.copy_on_device(base.data, q.data, base.num_rows * base.stride);
  if (count == 0) return;

  upload_columns(base_centroids, columns, base_columns_);
  upload_columns(centroids, columns, columns_);
  const auto measure_norms = [&](Columns& which) {
    cuda::RowFigures norms;
    norms.squared_norm = which.squared_norm.data();
    cuda::measure_rows(which.vectors.data(), count, dim, cuda::kLargestColumnUnit, norms,
                       stream_.handle());
  };
  measure_norms(base_columns_);
  measure_norms(columns_);
  cuda::narrow(columns_.squared_norm.data(), base_columns_.squared_norm.data(), count,
               columns_.norm.data(), stream_.handle());
  cuda::subtract(columns_.vectors.data(), base_columns_.vectors.data(), count * dim,
                 shift_.resize(count * dim), stream_.handle());
  cuda::RowFigures figures;
  figures.step = columns_.step.data();
  figures.quantized = columns_.quantized.data();
  cuda::measure_rows(shift_.data(), count, dim, cuda::kLargestColumnUnit, figures,
                     stream_.handle());
  cuda::changed_costs(
      {q.num_rows, count, dim, {}},
      {x.quantized.data(), x.step.data(), columns_.quantized.data(), columns_.step.data()},
      columns_.norm.data(), base.data, cost_columns(columns, scale_log2, q), stream_.handle());
}

const std::int32_t* CudaBackend::upload_labels(std::span<const std::int32_t> label) {
  stream_.upload(label, label_.resize(label.size()));
  return label_.data();
}

const std::int32_t* CudaBackend::upload_prices(std::span<const std::int32_t> prices) {
  stream_.upload(prices, prices_.resize(prices.size()));
  return prices_.data();
}

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

void CudaBackend::update_sums(const Points& points, RowSelection selection,
                              std::span<const std::int32_t> old_label,
                              std::span<const std::int32_t> new_label, SiteSums& sums) {
  enter();
  const LabelChanges changes = find_changes(selection, old_label, new_label, sums);
  if (changes.entry.empty()) return;
  const std::size_t dim = points.rows.cols;
  const std::size_t size = changes.site.size() * dim;
  stream_.fill(sums_.resize(size), 0, size);
  stream_.upload(std::span<const std::int32_t>(changes.entry), rows_.resize(changes.entry.size()));
  stream_.upload(std::span<const cuda::SumSegment>(changes.segment),
                 segments_.resize(changes.segment.size()));
  cuda::add_rows(own(points).x.data(), dim, std::ldexp(1.0, sums.scale_log2), rows_.data(),
                 segments_.data(), changes.segment.size(), sums_.data(), stream_.handle());
  const auto added = stream_.download<unsigned long long>(sums_.data(), size);
  stream_.wait();
  for (std::size_t target = 0; target < changes.site.size(); ++target) {
    const std::span<std::int64_t> sum = sums.sum.row(changes.site[target]);
    for (std::size_t l = 0; l < dim; ++l) {
      sum[l] += static_cast<std::int64_t>(added[target * dim + l]);
    }
  }
}

double CudaBackend::inertia(const Points& points, MatrixView<const float> centroids,
                            std::span<const std::int32_t> label) {
  enter();
  constexpr std::size_t kBlock = 256;
  const std::size_t n = points.rows.rows;
  upload_columns(centroids, all_of(centroids.rows), columns_);
  cuda::squared_distances(own(points).x.data(), n, points.rows.cols, columns_.vectors.data(),
                          upload_labels(label), row_norm_.resize(n), stream_.handle());
  const auto distance = stream_.download<double>(row_norm_.data(), n);
  stream_.wait();
  double total = 0;
  for (std::size_t first = 0; first < n; first += kBlock) {
    const auto block = distance.subspan(first, std::min(kBlock, n - first));
    total += std::accumulate(block.begin(), block.end(), 0.0);
  }
  return total;
}

void CudaBackend::multiply_transposed(MatrixView<const float> a, MatrixView<const float> b,
                                      MatrixView<float> out) {
  enter();
  upload_columns(b, all_of(b.rows), columns_);
  stream_.upload(std::span<const float>(a.values()), factor_.resize(a.size()));
  cuda::products({a.rows, b.rows, a.cols, {}}, factor_.data(), columns_.vectors.data(),
                 product_.resize(out.size()), stream_.handle());
  const auto products = stream_.download<float>(product_.data(), out.size());
  stream_.wait();
  std::ranges::copy(products, out.values().begin());
}

bool cuda_is_built() { return true; }

int cuda_device_count() {
  int count = 0;
  if (cudaGetDeviceCount(&count) == cudaSuccess) return count;
  cudaGetLastError();  // no driver or no device is an answer, not an error
  return 0;
}

CudaDevice cuda_device(int device) {
  cudaDeviceProp properties{};
  check(cudaGetDeviceProperties(&properties, device), "asking for its properties");
  char place[32] = {};
  check(cudaDeviceGetPCIBusId(place, sizeof(place), device), "asking for its place");
  return {properties.name, place};
}

std::unique_ptr<Backend> make_cuda_backend(int device, std::size_t num_threads) {
  const int count = cuda_device_count();
  if (device < 0 || device >= count) {
    throw DeviceError(
        count == 0 ? "--backend cuda: no NVIDIA GPU can be used here (no driver, no device, "
                     "or CUDA_VISIBLE_DEVICES hides it); use --backend cpu"
                   : fmt::format("device {} is not there: this process sees {}", device, count));
  }
  return std::make_unique<CudaBackend>(device, num_threads);
}

}  // namespace moefy
