#pragma once

#include <array>
#include <string>
#include <vector>

#include "cuda/assignment_kernels.hpp"
#include "cuda/auction_kernels.hpp"
#include "cuda/blas.hpp"
#include "cuda/cost_kernels.hpp"
#include "cuda/cuda_algebra.hpp"
#include "cuda/cuda_points.hpp"
#include "cuda/price_kernels.hpp"
#include "cuda/row_kernels.hpp"
#include "cuda/runtime.hpp"
#include "cuda/sum_kernels.hpp"
#include "moefy/backend/backend.hpp"

namespace moefy {

/// Who multiplies for fp32 costs.
enum class Fp32Products { own_kernels, cublas };

/// The primitives on one NVIDIA GPU: rows, int8 rows, costs, centroids and sums stay in device
/// memory; labels and prices come and go. One stream; memory is kept from layer to layer. A topic a
/// file: cuda_points.cpp, cuda_cost_buffers.cpp, cuda_costs.cpp, cuda_assignment.cpp,
/// cuda_centroids.cpp, cuda_sums.cpp; work on recorded tokens in cuda_algebra.cpp.
class CudaBackend final : public Backend {
 public:
  /// `device`: index among the visible ones. DeviceError if it is not there or cannot be used.
  CudaBackend(int device, std::size_t num_threads);

  std::string name() const override { return name_; }
  ThreadPool& threads() override { return threads_; }
  InstructionSet instruction_set() const override { return best_instruction_set(); }
  std::optional<int> device() const override { return device_; }
  LinearAlgebra& algebra() override { return algebra_; }

  CostView cost_buffer(std::size_t slot, std::size_t num_rows, std::size_t num_sites) override;
  CostView on_host(const CostView& q) override;
  void write_costs(MatrixView<const std::int32_t> costs, const CostView& q) override;
  void copy_rows(const CostView& from, std::span<const std::int32_t> rows,
                 const CostView& to) override;

  std::unique_ptr<RowMatrix> make_rows() override;
  std::unique_ptr<RawBytes> make_raw_bytes() override;
  std::unique_ptr<DeviceTransfers> make_transfers() override;
  std::unique_ptr<Points> make_points() override;
  std::unique_ptr<Centroids> make_centroids() override;
  std::unique_ptr<SiteSums> make_site_sums() override;
  void load(Points& points, const RowsView& rows, bool quantize) override;
  void load_shifted(Points& points, const RowsView& rows, std::span<const float> shift,
                    bool quantize) override;
  void read_rows(const Points& points, std::span<const std::int32_t> rows,
                 MatrixView<float> out) override;
  void copy_quantized(const Points& from, std::span<const std::int32_t> rows, Points& to) override;

  void costs(const Points& points, const RowsView& centroids, int scale_log2,
             std::span<const std::int32_t> columns, const CostView& q) override;
  /// costs(), by the one or the other: cublas only where it is there.
  void costs_by(Fp32Products products, const Points& points, const RowsView& centroids,
                int scale_log2, std::span<const std::int32_t> columns, const CostView& q);
  /// Which of them costs() takes for so many sites.
  Fp32Products products_for(std::size_t num_sites);
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
  bool list_moves(const CostView& q, std::span<const std::int32_t> label, std::size_t length,
                  std::vector<MoveEntry<std::int32_t>>& list) override;
  CertificateSums certificate_sums(const CostView& q, std::span<const std::int32_t> label,
                                   std::span<const std::int32_t> prices) override;
  PassResult price_passes(const CostView& q, const SiteRoom& room, const PassLimits& limits,
                          std::span<std::int32_t> prices, SiteChoice& choice) override;
  AuctionResult auction_phase(const CostView& q, std::span<const std::int64_t> size,
                              const AuctionLimits& limits, std::span<std::int32_t> prices) override;
  std::int64_t total_cost(const CostView& q, std::span<const std::int32_t> label) override;
  std::vector<std::int32_t> tied_rows(const CostView& q, std::span<const std::int32_t> label,
                                      std::span<const std::int32_t> prices) override;

  void update_sums(const Points& points, RowSelection selection,
                   std::span<const std::int32_t> old_label, std::span<const std::int32_t> new_label,
                   SiteSums& sums) override;
  std::vector<double> block_inertia(const Points& points, const RowsView& centroids,
                                    std::span<const std::int32_t> label) override;
  void multiply_transposed(MatrixView<const float> a, MatrixView<const float> b,
                           MatrixView<float> out) override;

 private:
  struct CostSlot {
    cuda::DeviceBuffer<std::int32_t> costs;
    cuda::PinnedBuffer<std::int32_t> copy;
    bool copied = false;  ///< `copy` holds what `costs` does
  };
  /// Columns of one call on the device: their vectors and figures.
  struct Columns {
    cuda::DeviceBuffer<float> vectors;  ///< [count, dim]
    cuda::DeviceBuffer<float> norm;
    cuda::DeviceBuffer<float> step;
    cuda::DeviceBuffer<std::int8_t> quantized;
    std::vector<float> packed;  ///< host memory while they are gathered
    void resize(std::size_t count, std::size_t dim);
    cuda::ColumnFigures figures() { return {norm.data(), step.data(), quantized.data()}; }
  };

  /// The calling thread works with this device from now on.
  void enter() const;
  CostSlot& slot_of(const CostView& q);
  /// The slot, whose host copy is out of date from now on.
  CostSlot& written(const CostView& q);
  /// The columns' vectors become these rows of `centroids`, which are in host or device memory.
  void take_columns(const RowsView& centroids, std::span<const std::int32_t> which,
                    Columns& columns);
  /// Columns [0, count).
  static std::vector<std::int32_t> all_columns(std::size_t count);
  const std::int32_t* upload_labels(std::span<const std::int32_t> label);
  /// [q.stride], padding kNoSite.
  std::int32_t* upload_prices(const CostView& q, std::span<const std::int32_t> prices);
  void exact_costs_by_blas(const cuda::CudaPoints& x, const cuda::ProductShape& shape,
                           const cuda::CostColumns& out);
  /// finish(shape, factors, row) for blocks of rows, the first of which is `row`: the int8 rows and
  /// those of columns_, with their products where cuBLAS has computed them.
  template <class Finish>
  void with_int8_products(const cuda::CudaPoints& x, const cuda::ProductShape& shape,
                          const Finish& finish);
  cuda::CostColumns cost_columns(std::span<const std::int32_t> which, int scale_log2,
                                 const CostView& q);

  int device_;
  std::string name_;
  ThreadPool threads_;
  cuda::Stream stream_;
  cuda::Blas blas_;  ///< works on stream_
  CudaAlgebra algebra_{device_, threads_, stream_, blas_};
  std::array<CostSlot, 4> slots_;
  Columns columns_;
  Columns base_columns_;
  cuda::DeviceBuffer<float> shift_;
  cuda::DeviceBuffer<std::int32_t> which_;
  cuda::DeviceBuffer<std::int32_t> rows_;
  cuda::DeviceBuffer<std::int64_t> site_begin_;  ///< of list_moves: where rows_ of each site begin
  cuda::DeviceBuffer<std::int32_t> label_;
  cuda::DeviceBuffer<std::int32_t> best_;
  cuda::DeviceBuffer<std::int32_t> margin_;
  cuda::DeviceBuffer<std::int32_t> prices_;
  std::vector<std::int32_t> padded_prices_;  ///< host memory on the way to prices_
  cuda::DeviceBuffer<std::int32_t> price_scratch_;
  cuda::DeviceBuffer<std::int64_t> room_;
  cuda::DeviceBuffer<cuda::PassOutcome> outcome_;
  cuda::DeviceBuffer<std::int32_t> auction_;
  std::vector<std::int32_t> first_place_;  ///< host memory on the way to auction_
  cuda::DeviceBuffer<AuctionResult> auction_result_;
  cuda::DeviceBuffer<unsigned> count_;
  cuda::DeviceBuffer<unsigned long long> total_;
  cuda::DeviceBuffer<unsigned long long> moves_;
  cuda::DeviceBuffer<cuda::SumSegment> segments_;
  cuda::DeviceBuffer<cuda::DeviceCertificate> certificate_;
  cuda::DeviceBuffer<double> row_norm_;
  cuda::DeviceBuffer<float> row_max_;
  cuda::DeviceBuffer<std::uint64_t> first_bad_;
  cuda::DeviceBuffer<float> factor_;
  cuda::DeviceBuffer<float> product_;
};

}  // namespace moefy
