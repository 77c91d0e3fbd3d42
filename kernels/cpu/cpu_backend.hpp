#pragma once

#include <array>

#include "cpu/cpu_algebra.hpp"
#include "cpu/moved_rows.hpp"
#include "cpu/panel_buffers.hpp"
#include "cpu/row_kernels.hpp"
#include "moefy/backend/backend.hpp"

namespace moefy {

/// Tiles over a thread pool, with the vector kernels of one instruction set.
class CpuBackend final : public Backend {
 public:
  CpuBackend(std::size_t num_threads, InstructionSet instruction_set);

  std::string name() const override;
  ThreadPool& threads() override { return threads_; }
  LinearAlgebra& algebra() override { return algebra_; }
  InstructionSet instruction_set() const override { return instruction_set_; }

  CostView cost_buffer(std::size_t slot, std::size_t num_rows, std::size_t num_sites) override;
  std::unique_ptr<Points> make_points() override;
  void load(Points& points, const RowsView& rows_in, bool quantize) override;
  void copy_quantized(const Points& from, std::span<const std::int32_t> rows, Points& to) override;

  void costs(const Points& points, const RowsView& centroids, int scale_log2,
             std::span<const std::int32_t> columns, const CostView& q) override;
  void approximate_costs(const Points& points, RowSelection selection, const RowsView& centroids,
                         int scale_log2, const CostView& q) override;
  void changed_costs(const Points& points, const RowsView& base_centroids,
                     const RowsView& centroids, int scale_log2,
                     std::span<const std::int32_t> columns, bool copy_others, const CostView& base,
                     const CostView& q) override;

  void best_sites(const CostView& q, std::span<const std::int32_t> prices, bool with_margins,
                  SiteChoice& choice) override;
  void smallest_moves(const CostView& q, std::span<const std::int32_t> label,
                      std::span<std::int32_t> key, std::span<std::int32_t> row) override;
  CertificateSums certificate_sums(const CostView& q, std::span<const std::int32_t> label,
                                   std::span<const std::int32_t> prices) override;

  void update_sums(const Points& points, RowSelection selection,
                   std::span<const std::int32_t> old_label, std::span<const std::int32_t> new_label,
                   SiteSums& sums) override;
  std::vector<double> block_inertia(const Points& points, const RowsView& centroids,
                                    std::span<const std::int32_t> label) override;
  void multiply_transposed(MatrixView<const float> a, MatrixView<const float> b,
                           MatrixView<float> out) override;

 private:
  InstructionSet instruction_set_;
  const cpu::RowKernels& kernels_;
  ThreadPool threads_;
  CpuAlgebra algebra_{threads_};
  std::array<AlignedBuffer<std::int32_t>, 4> cost_buffers_;
  cpu::PanelBuffers panels_;
  std::vector<std::int32_t> all_columns_;
  cpu::MovedRows moves_;
};

}  // namespace moefy
