#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "moefy/backend/auction.hpp"
#include "moefy/backend/centroids.hpp"
#include "moefy/backend/device_transfers.hpp"
#include "moefy/backend/instruction_set.hpp"
#include "moefy/backend/linear_algebra.hpp"
#include "moefy/backend/move_entry.hpp"
#include "moefy/backend/price_passes.hpp"
#include "moefy/backend/rows.hpp"
#include "moefy/core/matrix.hpp"
#include "moefy/core/thread_pool.hpp"

namespace moefy {

/// Fixed-point costs are at most this, so that a reduced cost (cost plus a difference of prices)
/// fits an int32 lane.
inline constexpr std::int32_t kMaxCost = 1 << 28;
/// Larger than any cost plus any price; prices of the padding columns.
inline constexpr std::int32_t kNoSite = 1 << 30;
/// Rows of a cost matrix are padded to a multiple of this many columns; padding columns hold 0.
inline constexpr std::size_t kSiteAlignment = 16;
/// Rows come in blocks of this many by global index where a subsample is taken.
inline constexpr std::size_t kSampleBlock = 64;
/// fp64 sums over rows: blocks of this many rows by global index, added in index order. Ranks that
/// share the rows of one layer begin at multiples of it (and so of kSampleBlock).
inline constexpr std::size_t kSumBlock = 256;

/// Fixed-point costs q [num_rows, num_sites] in a backend's memory, row-major with row length
/// `stride` = num_sites rounded up to kSiteAlignment; 64-byte aligned.
struct CostView {
  std::int32_t* data = nullptr;
  std::size_t num_rows = 0;
  std::size_t num_sites = 0;
  std::size_t stride = 0;
  MemorySpace space = MemorySpace::host;
  std::int32_t* row(std::size_t i) const { return data + i * stride; }
};

/// Which rows take part: every `step`-th block of kSampleBlock rows by index, from block `first`
/// on. Selected rows are numbered consecutively.
struct RowSelection {
  std::size_t step = 1;   ///< 1: all
  std::size_t first = 0;  ///< not 0 only where the rows are the later part of a layer
  std::size_t count(std::size_t num_rows) const;
  /// Index of selected row `i` among all rows.
  constexpr std::size_t global(std::size_t i) const {
    return (first + i / kSampleBlock * step) * kSampleBlock + i % kSampleBlock;
  }
};

/// The rows of one layer as a backend holds them: the fp32 rows (not copied where they are in its
/// memory already), squared norms, and int8 rows with one step per row. Reused from layer to layer.
class Points {
 public:
  virtual ~Points() = default;
  RowsView rows;                           ///< [num_rows, dim]; stays alive as long as the points
  double max_squared_norm = 0;             ///< R²
  double sum_squared_norm = 0;             ///< sum of block_squared_norm in index order
  std::vector<double> block_squared_norm;  ///< [num_rows / kSumBlock, rounded up] sums in fp64
  float max_abs = 0;                       ///< largest |x|
  std::int64_t zero_rows = 0;
  Matrix<float> shifted;  ///< memory of `rows` after Backend::load_shifted
};

using SiteChoice = BasicSiteChoice<std::int32_t>;

/// The integers from which optimality of an assignment is decided.
struct CertificateSums {
  std::int64_t cost = 0;        ///< Σ_i q[i, label_i]
  std::int64_t row_minima = 0;  ///< Σ_i min_j (q_ij + p_j)
  std::int64_t worst = 0;       ///< max_i (q_i,label + p_label - min_j (q_ij + p_j)), 0 if optimal
  std::int64_t worst_row = -1;  ///< first row where it is reached, -1 if worst is 0
  std::int64_t unconstrained = 0;  ///< Σ_i min_j q_ij
};

/// The few primitives that depend on hardware. The solver, the EM and everything else exist once,
/// above this interface. `reference` defines what each means; every backend is tested against it.
/// All pointers are host memory unless a view says otherwise. Not thread-safe: one per rank.
class Backend {
 public:
  virtual ~Backend() = default;
  /// "reference", "cpu (avx512-vnni)", …
  virtual std::string name() const = 0;
  virtual ThreadPool& threads() = 0;
  /// What loops above this interface that run on the host (the solver's) should use, too.
  virtual InstructionSet instruction_set() const { return InstructionSet::portable; }
  /// The GPU that computes, an index among the visible ones; none on the host.
  virtual std::optional<int> device() const { return std::nullopt; }
  /// The dense operations that work on recorded tokens consists of; lives as long as the backend.
  virtual LinearAlgebra& algebra() = 0;

  /// Memory for a cost matrix in this backend's space, valid until the next call with the same
  /// slot (0..3) and at least num_rows x num_sites large; contents undefined but padding columns 0.
  virtual CostView cost_buffer(std::size_t slot, std::size_t num_rows, std::size_t num_sites) = 0;

  /// The same costs for the host to read: q itself where it lies in host memory, else a copy that
  /// is valid until q changes.
  virtual CostView on_host(const CostView& q) { return q; }
  /// q becomes these costs [num_rows, num_sites].
  virtual void write_costs(MatrixView<const std::int32_t> costs, const CostView& q);
  /// Row a of `to` becomes row rows[a] of `from`.
  virtual void copy_rows(const CostView& from, std::span<const std::int32_t> rows,
                         const CostView& to);

  /// Where the rows of a layer should lie: in the backend's memory.
  virtual std::unique_ptr<RowMatrix> make_rows() { return make_host_rows(threads()); }
  /// Memory for the bytes from which make_rows() is filled; null if that is filled by the host.
  virtual std::unique_ptr<RawBytes> make_raw_bytes() { return nullptr; }
  /// Copies beside what is computed; null without a device.
  virtual std::unique_ptr<DeviceTransfers> make_transfers() { return nullptr; }
  virtual std::unique_ptr<Points> make_points() = 0;
  /// Centroids, and sums of rows, in this backend's memory.
  virtual std::unique_ptr<Centroids> make_centroids() { return make_host_centroids(); }
  virtual std::unique_ptr<SiteSums> make_site_sums() { return make_host_sums(); }
  /// Reads every row once: norms, largest value, int8 rows (if `quantize`). NaN or infinity:
  /// InputError naming row and column. `rows`: in host memory, or in make_rows().
  virtual void load(Points& points, const RowsView& rows, bool quantize) = 0;
  /// The same for rows - shift, shift [dim].
  virtual void load_shifted(Points& points, const RowsView& rows, std::span<const float> shift,
                            bool quantize);
  /// Row a of `out` becomes row rows[a] of the points.
  virtual void read_rows(const Points& points, std::span<const std::int32_t> rows,
                         MatrixView<float> out);
  /// Makes `to` the int8 rows of these (ascending) `rows` of `from`, in this order: what
  /// changed_costs needs. `to` has no fp32 rows.
  virtual void copy_quantized(const Points& from, std::span<const std::int32_t> rows,
                              Points& to) = 0;

  /// Exact (fp32) costs: q(i,j) = clamp(rint(max(0, ‖x_i‖² + ‖c_j‖² - 2 x_i·c_j) · 2^s), 0,
  /// kMaxCost) for the sites in `columns` (ascending; others keep their column). centroids
  /// [num_sites, dim], here and below: in host memory, or those of make_centroids().
  virtual void costs(const Points& points, const RowsView& centroids, int scale_log2,
                     std::span<const std::int32_t> columns, const CostView& q) = 0;
  /// int8 approximation of the same for the selected rows (row i of q is selected row i), all
  /// sites: rows in steps of 1/127, centroids in steps of 1/63 of their largest element.
  virtual void approximate_costs(const Points& points, RowSelection selection,
                                 const RowsView& centroids, int scale_log2, const CostView& q) = 0;
  /// q = max(0, base + int8 approximation of the change of cost from base_centroids to centroids)
  /// in `columns`. Other columns of q are left alone, or copied from base if `copy_others`.
  virtual void changed_costs(const Points& points, const RowsView& base_centroids,
                             const RowsView& centroids, int scale_log2,
                             std::span<const std::int32_t> columns, bool copy_others,
                             const CostView& base, const CostView& q) = 0;

  /// Best site of every row of q under prices [stride] (padding columns kNoSite).
  virtual void best_sites(const CostView& q, std::span<const std::int32_t> prices,
                          bool with_margins, SiteChoice& choice) = 0;
  /// For every pair (u, v): the least q_iv - q_iu over the rows labelled u, and its row (lowest id
  /// on ties); kNoSite and -1 where u is empty. key and row: [num_sites, stride].
  virtual void smallest_moves(const CostView& q, std::span<const std::int32_t> label,
                              std::span<std::int32_t> key, std::span<std::int32_t> row) = 0;
  /// The `length` (at most 32) smallest moves of each of these pairs, where u has so many rows;
  /// behind them kNoSite and -1. list becomes [num_sites, num_sites, length]. False, and list
  /// stays, where it is cheaper to look for them when they are needed, as it is on a host.
  virtual bool list_moves(const CostView& /*q*/, std::span<const std::int32_t> /*label*/,
                          std::size_t /*length*/, std::vector<MoveEntry<std::int32_t>>& /*list*/) {
    return false;
  }
  virtual CertificateSums certificate_sums(const CostView& q, std::span<const std::int32_t> label,
                                           std::span<const std::int32_t> prices) = 0;
  /// Price passes from `prices` [stride] (padding columns kNoSite) until the sizes fit `room` well
  /// enough: see PricePasses, which defines the result for every backend. Prices become the best
  /// ones; of `choice` their labels and counts are filled.
  virtual PassResult price_passes(const CostView& q, const SiteRoom& room, const PassLimits& limits,
                                  std::span<std::int32_t> prices, SiteChoice& choice);
  /// A phase of the auction from `prices` [stride], which become those that it ends with; size
  /// [num_sites]: see AuctionPhase, which defines the result for every backend.
  virtual AuctionResult auction_phase(const CostView& q, std::span<const std::int64_t> size,
                                      const AuctionLimits& limits, std::span<std::int32_t> prices);
  /// Σ_i q[i, label_i]
  virtual std::int64_t total_cost(const CostView& q, std::span<const std::int32_t> label);
  /// Rows, ascending, for which a site other than their own costs the same under prices [stride].
  virtual std::vector<std::int32_t> tied_rows(const CostView& q,
                                              std::span<const std::int32_t> label,
                                              std::span<const std::int32_t> prices);

  /// sums over the selected rows of points whose label changed: subtracted from old_label's site
  /// (unless it is negative) and added to new_label's. Labels by selected row.
  virtual void update_sums(const Points& points, RowSelection selection,
                           std::span<const std::int32_t> old_label,
                           std::span<const std::int32_t> new_label, SiteSums& sums) = 0;
  /// Σ_i ‖x_i - c_label(i)‖² in fp64 over each block of kSumBlock rows, rows in index order.
  virtual std::vector<double> block_inertia(const Points& points, const RowsView& centroids,
                                            std::span<const std::int32_t> label) = 0;
  /// The sum of these blocks, added in index order.
  double inertia(const Points& points, const RowsView& centroids,
                 std::span<const std::int32_t> label);

  /// out [a.rows, b.rows] = a · bᵀ in fp32; a [m, k], b [n, k], tiles of 256 rows of a.
  virtual void multiply_transposed(MatrixView<const float> a, MatrixView<const float> b,
                                   MatrixView<float> out) = 0;

 private:
  PricePasses<std::int32_t> host_passes_;
  AuctionPhase host_auction_;
};

std::unique_ptr<Backend> make_reference_backend(std::size_t num_threads);
/// Tiles and threads, with the best instruction set of this CPU chosen once. `instruction_set`
/// "auto", "amx-int8", "avx512-vnni", "avx2" or "portable" (for tests and bench). UsageError if
/// this CPU lacks it.
std::unique_ptr<Backend> make_cpu_backend(std::size_t num_threads,
                                          const std::string& instruction_set = "auto");

/// Whether `cuda` can be asked for at all in this build.
bool cuda_is_built();
/// NVIDIA GPUs that this process may use; 0 without a driver, or built without CUDA.
int cuda_device_count();
/// Why there are none, for people: "no driver", "the driver supports CUDA 12.4, moefy was built
/// with 13.0", …; empty if there are some.
std::string cuda_obstacle();
/// What the driver supports ("12.4") and what moefy was built with; empty where there is none.
struct CudaVersions {
  std::string driver;
  std::string runtime;
};
CudaVersions cuda_versions();
/// A GPU: its model, and where it sits in its host ("0000:3b:00.0"), the same for every process.
struct CudaDevice {
  std::string model;
  std::string place;
};
/// DeviceError if it is not there.
CudaDevice cuda_device(int device);
/// Bytes that are free on GPU `device`, which this process then uses. Throws DeviceError.
std::uint64_t free_cuda_memory(int device);
/// This process may hold so many bytes of GPU memory; 0: as many as there are. What goes beyond is
/// a DeviceError that names the bytes wanted.
void limit_cuda_memory(std::uint64_t bytes);
/// The primitives on GPU `device` (an index among the visible ones); `num_threads` for what stays
/// on the host. UsageError if moefy was built without CUDA, DeviceError if there is no such device.
std::unique_ptr<Backend> make_cuda_backend(int device, std::size_t num_threads);

}  // namespace moefy
