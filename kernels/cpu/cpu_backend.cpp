#include "cpu/cpu_backend.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include <fmt/format.h>

#include "cpu/assignment_kernels.hpp"
#include "moefy/core/error.hpp"

namespace moefy {
namespace {

// Rows of one task: a multiple of every tile height and of kSampleBlock. No result depends on it.
constexpr std::size_t kTaskRows = 192;

struct CpuPoints final : Points {
  void resize(std::size_t num_rows, std::size_t num_units, bool with_units) {
    const std::size_t padded = (num_rows + cpu::kGroupRows - 1) / cpu::kGroupRows * cpu::kGroupRows;
    units_per_row = num_units;
    quantized = with_units;
    squared_norm.resize(padded);
    step.resize(padded);
    sum.resize(padded);
    if (quantized) units.resize(padded * units_per_row + cpu::kReadableUnits);
  }
  cpu::QuantizedRows arrays() {
    return {squared_norm.data(), step.data(), sum.data(), quantized ? units.data() : nullptr,
            units_per_row};
  }
  AlignedBuffer<float> squared_norm;
  AlignedBuffer<float> step;
  AlignedBuffer<std::int32_t> sum;
  AlignedBuffer<std::int32_t> units;
  std::size_t units_per_row = 0;
  bool quantized = false;
};

const CpuPoints& own(const Points& points) { return static_cast<const CpuPoints&>(points); }

cpu::QuantizedRows quantized_rows(const Points& points) {
  require(own(points).quantized, "points were loaded without int8 rows");
  return const_cast<CpuPoints&>(own(points)).arrays();
}

/// The same rows but for the first ones; `first` is a multiple of kGroupRows.
cpu::QuantizedRows rows_from(cpu::QuantizedRows rows, std::size_t first) {
  rows.squared_norm += first;
  rows.step += first;
  rows.sum += first;
  rows.units += first * rows.units_per_row;
  return rows;
}

const cpu::RowKernels& kernels_of(InstructionSet set) {
#if defined(__x86_64__)
  if (set == InstructionSet::amx_int8) return cpu::amx_row_kernels();
  if (set == InstructionSet::avx512_vnni) return cpu::avx512_row_kernels();
  if (set == InstructionSet::avx2) return cpu::avx2_row_kernels();
#endif
  require(set == InstructionSet::portable, "instruction set has row kernels");
  return cpu::portable_row_kernels();
}

/// body(first, last) for every task of kTaskRows rows.
template <class Body>
void for_each_task(ThreadPool& threads, std::size_t num_rows, const Body& body) {
  threads.for_each((num_rows + kTaskRows - 1) / kTaskRows, [&](std::size_t task) {
    const std::size_t first = task * kTaskRows;
    body(first, std::min(first + kTaskRows, num_rows));
  });
}

/// body(block, first, last) for every block whose sum is taken alone.
template <class Body>
void for_each_sum_block(ThreadPool& threads, std::size_t num_rows, const Body& body) {
  threads.for_each((num_rows + kSumBlock - 1) / kSumBlock, [&](std::size_t block) {
    const std::size_t first = block * kSumBlock;
    body(block, first, std::min(first + kSumBlock, num_rows));
  });
}

/// Memory for the packed results of a tile, one a thread.
std::int32_t* tile_scratch(const cpu::Panels& panels) {
  thread_local AlignedBuffer<std::int32_t> buffer;
  buffer.resize(cpu::kScratchRows * panels.packed_columns);
  return buffer.data();
}

[[noreturn]] void throw_not_finite(MatrixView<const float> rows, std::size_t i) {
  const auto row = rows.row(i);
  const auto bad = std::find_if(row.begin(), row.end(), [](float x) { return !std::isfinite(x); });
  throw InputError(fmt::format("row {}, column {} is {}", i, bad - row.begin(), *bad));
}

}  // namespace

CpuBackend::CpuBackend(std::size_t num_threads, InstructionSet instruction_set)
    : instruction_set_(instruction_set),
      kernels_(kernels_of(instruction_set)),
      threads_(num_threads) {}

std::string CpuBackend::name() const {
  return fmt::format("cpu ({})", to_string(instruction_set_));
}

CostView CpuBackend::cost_buffer(std::size_t slot, std::size_t num_rows, std::size_t num_sites) {
  CostView view;
  view.num_rows = num_rows;
  view.num_sites = num_sites;
  view.stride = (num_sites + kSiteAlignment - 1) / kSiteAlignment * kSiteAlignment;
  cost_buffers_.at(slot).resize(num_rows * view.stride);
  view.data = cost_buffers_[slot].data();
  if (num_sites % kSiteAlignment != 0) {
    for (std::size_t i = 0; i < num_rows; ++i) {
      std::fill(view.row(i) + num_sites, view.row(i) + view.stride, 0);
    }
  }
  return view;
}

std::unique_ptr<Points> CpuBackend::make_points() { return std::make_unique<CpuPoints>(); }

void CpuBackend::load(Points& points, const RowsView& rows_in, bool quantize) {
  const MatrixView<const float> rows = rows_in.on_host();
  auto& own_points = static_cast<CpuPoints&>(points);
  own_points.rows = rows;
  own_points.resize(
      rows.rows, (rows.cols + kernels_.values_per_unit - 1) / kernels_.values_per_unit, quantize);

  std::vector<cpu::LoadStatistics> statistics((rows.rows + kSumBlock - 1) / kSumBlock);
  for_each_sum_block(threads_, rows.rows,
                     [&](std::size_t block, std::size_t first, std::size_t last) {
                       kernels_.load(rows.data, rows.rows, rows.cols, first, last,
                                     own_points.arrays(), statistics[block]);
                     });
  own_points.max_squared_norm = 0;
  own_points.sum_squared_norm = 0;
  own_points.block_squared_norm.clear();
  own_points.max_abs = 0;
  own_points.zero_rows = 0;
  for (const cpu::LoadStatistics& part : statistics) {
    if (part.bad_row >= 0) throw_not_finite(rows, static_cast<std::size_t>(part.bad_row));
    own_points.max_squared_norm = std::max(own_points.max_squared_norm, part.max_squared_norm);
    own_points.sum_squared_norm += part.sum_squared_norm;
    own_points.block_squared_norm.push_back(part.sum_squared_norm);
    own_points.max_abs = std::max(own_points.max_abs, part.max_abs);
    own_points.zero_rows += part.zero_rows;
  }
}

void CpuBackend::copy_quantized(const Points& from, std::span<const std::int32_t> rows,
                                Points& to) {
  const cpu::QuantizedRows source = quantized_rows(from);
  auto& target = static_cast<CpuPoints&>(to);
  target.rows = {nullptr, rows.size(), from.rows.cols};
  target.resize(rows.size(), source.units_per_row, true);
  for_each_task(threads_, rows.size(), [&](std::size_t first, std::size_t last) {
    for (std::size_t begin = first; begin < last; begin += cpu::kGroupRows) {
      const std::int32_t* unit_of[cpu::kGroupRows];
      for (std::size_t r = 0; r < cpu::kGroupRows; ++r) {
        // Padding rows are copies of the last one.
        const auto i = static_cast<std::size_t>(rows[std::min(begin + r, last - 1)]);
        target.squared_norm[begin + r] = source.squared_norm[i];
        target.step[begin + r] = source.step[i];
        target.sum[begin + r] = source.sum[i];
        unit_of[r] = source.units + i / cpu::kGroupRows * cpu::kGroupRows * source.units_per_row +
                     i % cpu::kGroupRows;
      }
      std::int32_t* out = target.units.data() + begin * source.units_per_row;
      for (std::size_t u = 0; u < source.units_per_row; ++u) {
        for (const std::int32_t* unit : unit_of) *out++ = unit[u * cpu::kGroupRows];
      }
    }
  });
}

void CpuBackend::costs(const Points& points, const RowsView& centroids, int scale_log2,
                       std::span<const std::int32_t> columns, const CostView& q) {
  const cpu::Panels panels =
      panels_.pack_floats(kernels_, centroids.on_host(), columns, std::ldexp(1.0F, scale_log2));
  for_each_task(threads_, q.num_rows, [&](std::size_t first, std::size_t last) {
    kernels_.costs(points.rows.data, own(points).squared_norm.data(), panels, first, last, q.data,
                   q.stride, tile_scratch(panels));
  });
}

void CpuBackend::approximate_costs(const Points& points, RowSelection selection,
                                   const RowsView& centroids, int scale_log2, const CostView& q) {
  all_columns_.resize(q.num_sites);
  std::iota(all_columns_.begin(), all_columns_.end(), 0);
  const cpu::Panels panels = panels_.pack_units(kernels_, centroids.on_host(), {}, all_columns_,
                                                std::ldexp(1.0F, scale_log2));
  const cpu::QuantizedRows rows = rows_from(quantized_rows(points), selection.first * kSampleBlock);
  for_each_task(threads_, q.num_rows, [&](std::size_t first, std::size_t last) {
    kernels_.approximate_costs(rows, panels, selection.step, first, last, q.data, q.stride,
                               tile_scratch(panels));
  });
}

void CpuBackend::changed_costs(const Points& points, const RowsView& base_centroids,
                               const RowsView& centroids, int scale_log2,
                               std::span<const std::int32_t> columns, bool copy_others,
                               const CostView& base, const CostView& q) {
  const cpu::Panels panels =
      panels_.pack_units(kernels_, centroids.on_host(), base_centroids.on_host(), columns,
                         std::ldexp(1.0F, scale_log2));
  const cpu::QuantizedRows rows = quantized_rows(points);
  for_each_task(threads_, q.num_rows, [&](std::size_t first, std::size_t last) {
    kernels_.changed_costs(rows, panels, copy_others, first, last, base.data, q.data, q.stride,
                           tile_scratch(panels));
  });
}

void CpuBackend::best_sites(const CostView& q, std::span<const std::int32_t> prices,
                            bool with_margins, SiteChoice& choice) {
  cpu::best_sites(threads_, instruction_set_, q, prices, with_margins, choice);
}

void CpuBackend::smallest_moves(const CostView& q, std::span<const std::int32_t> label,
                                std::span<std::int32_t> key, std::span<std::int32_t> row) {
  cpu::smallest_moves(threads_, instruction_set_, q, label, key, row);
}

CertificateSums CpuBackend::certificate_sums(const CostView& q, std::span<const std::int32_t> label,
                                             std::span<const std::int32_t> prices) {
  return cpu::certificate_sums(threads_, instruction_set_, q, label, prices);
}

void CpuBackend::update_sums(const Points& points, RowSelection selection,
                             std::span<const std::int32_t> old_label,
                             std::span<const std::int32_t> new_label, SiteSums& sums) {
  moves_.collect(points.rows.on_host(), selection, old_label, new_label, sums.count.size());
  const double scale = std::ldexp(1.0, sums.scale_log2);
  const std::size_t dim = points.rows.cols;
  Matrix<std::int64_t>& values = host_sums(sums);
  // Threads share the columns, not the rows: no two of them touch the same sum.
  constexpr std::size_t kAlignment = 64;
  const std::size_t parts = std::min(threads_.size(), (dim + kAlignment - 1) / kAlignment);
  const std::size_t width =
      parts == 0 ? 0 : (dim + parts * kAlignment - 1) / (parts * kAlignment) * kAlignment;
  threads_.for_each(parts, [&](std::size_t part) {
    const std::size_t begin = std::min(part * width, dim);
    const std::size_t count = std::min(begin + width, dim) - begin;
    for (std::size_t j = 0; j < sums.count.size() && count > 0; ++j) {
      std::int64_t* sum = values.row(j).data() + begin;
      moves_.for_each_slice(j, begin, [&](std::span<const float* const> rows, bool leaving) {
        kernels_.add_rows(rows.data(), rows.size(), count, scale, leaving, sum);
      });
    }
  });
  moves_.add_counts(sums.count);
}

std::vector<double> CpuBackend::block_inertia(const Points& points, const RowsView& centroids,
                                              std::span<const std::int32_t> label) {
  const std::size_t num_rows = points.rows.rows;
  std::vector<double> sum((num_rows + kSumBlock - 1) / kSumBlock, 0);
  for_each_sum_block(
      threads_, num_rows, [&](std::size_t block, std::size_t first, std::size_t last) {
        for (std::size_t i = first; i < last; ++i) {
          const auto site = static_cast<std::size_t>(label[i]);
          sum[block] += kernels_.squared_distance(points.rows.row(i).data(),
                                                  centroids.row(site).data(), points.rows.cols);
        }
      });
  return sum;
}

void CpuBackend::multiply_transposed(MatrixView<const float> a, MatrixView<const float> b,
                                     MatrixView<float> out) {
  all_columns_.resize(b.rows);
  std::iota(all_columns_.begin(), all_columns_.end(), 0);
  const cpu::Panels panels = panels_.pack_floats(kernels_, b, all_columns_, 1);
  for_each_task(threads_, a.rows, [&](std::size_t first, std::size_t last) {
    kernels_.multiply(a.data, panels, first, last, b.rows, out.data);
  });
}

std::unique_ptr<Backend> make_cpu_backend(std::size_t num_threads,
                                          const std::string& instruction_set) {
  return std::make_unique<CpuBackend>(num_threads, choose_instruction_set(instruction_set));
}

}  // namespace moefy
