#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "moefy/backend/rows.hpp"
#include "moefy/core/matrix.hpp"

namespace moefy {

// What a clustering moves, where the backend computes: centroids, and the sums that they are means
// of. Memory is kept where it is large enough. What a call is given belongs to the same backend,
// which must outlive it. Every call may throw DeviceError.

/// Centroids [num_sites, dim] in fp32.
class Centroids {
 public:
  virtual ~Centroids() = default;
  /// Contents are undefined afterwards.
  virtual void resize(std::size_t num_sites, std::size_t dim) = 0;
  /// A copy of these values of the same shape: host memory, or view() of others.
  virtual void assign(const RowsView& values) = 0;
  /// Where they lie, for the primitives of the backend; valid until resize().
  virtual RowsView view() const = 0;
  /// A copy for the host; out [num_sites, dim].
  virtual void read(MatrixView<float> out) const = 0;
  /// Sites whose centroid differs from that of `before`, bit for bit, ascending.
  virtual std::vector<std::int32_t> changed_sites(const Centroids& before) const = 0;
  /// Σ_l (c_jl - before_jl)² of every site in fp64, columns in order.
  virtual std::vector<double> squared_shifts(const Centroids& before) const = 0;
};

/// Sums as the host reads them.
struct SumsView {
  MatrixView<const std::int64_t> sum;  ///< [num_sites, dim]
  std::span<const std::int64_t> count;
  int scale_log2 = 0;
};

/// 2^-scale_log2 / count: what makes a mean of a sum.
double mean_share(int scale_log2, std::int64_t count);

/// Integer sums of rows per site, x · 2^a rounded to nearest even: order-free, so threads, ranks
/// and incremental updates cannot change a bit. Backend::update_sums changes them.
class SiteSums {
 public:
  std::vector<std::int64_t> count;  ///< [num_sites] rows
  int scale_log2 = 0;               ///< a

  virtual ~SiteSums() = default;
  /// Makes them zero: no rows, sums [num_sites, dim].
  virtual void clear(std::size_t num_sites, std::size_t dim, int scale_log2) = 0;
  /// The sums of `sites` (ascending) for the host to read, valid until the next call. Other rows
  /// are undefined.
  virtual SumsView on_host(std::span<const std::int32_t> sites) = 0;
  /// All of them, [num_sites * dim], in the memory in which the backend computes: complete on
  /// return, valid until clear(), and who changes them changes the sums.
  virtual std::span<std::int64_t> in_place() = 0;
  /// The centroids of `sites`, none of which is empty, become the means float(sum · (2^-a /
  /// count)), computed in fp64. Returns Σ_l (new - old)² of each in fp64, columns in order.
  virtual std::vector<double> move_to_means(std::span<const std::int32_t> sites,
                                            Centroids& centroids) = 0;

 protected:
  double share(std::int32_t site) const;  ///< mean_share
};

std::unique_ptr<Centroids> make_host_centroids();
std::unique_ptr<SiteSums> make_host_sums();
/// The sums of backends on the host, to be changed by them.
Matrix<std::int64_t>& host_sums(SiteSums& sums);

}  // namespace moefy
