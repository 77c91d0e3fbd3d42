#pragma once

#include <array>

#include "moefy/backend/backend.hpp"
#include "reference/reference_algebra.hpp"

namespace moefy {

/// Plain loops that define what each primitive means; nothing is shared with other backends.
class ReferenceBackend final : public Backend {
 public:
  explicit ReferenceBackend(std::size_t num_threads);

  std::string name() const override { return "reference"; }
  ThreadPool& threads() override { return threads_; }
  LinearAlgebra& algebra() override { return algebra_; }

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
  ThreadPool threads_;
  ReferenceAlgebra algebra_{threads_};
  std::array<AlignedBuffer<std::int32_t>, 4> cost_buffers_;
};

}  // namespace moefy
