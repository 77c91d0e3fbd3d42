#pragma once

#include <cstdint>
#include <span>
#include <type_traits>
#include <vector>

#include "moefy/backend/backend.hpp"

namespace moefy {

template <class Cost>
using Choice = BasicSiteChoice<Cost>;

/// Price of no site at all: above any cost plus any price.
template <class Cost>
inline constexpr Cost kNoPrice = std::is_same_v<Cost, std::int32_t> ? static_cast<Cost>(kNoSite)
                                                                    : static_cast<Cost>(1LL << 60);

/// Largest cost, and largest price that a solver starts from.
template <class Cost>
inline constexpr Cost kLargestCost = std::is_same_v<Cost, std::int32_t>
                                         ? static_cast<Cost>(kMaxCost)
                                         : static_cast<Cost>(1LL << 46);

/// Costs that a backend may hold, and so bid for.
template <class Cost>
class AuctionCosts {
 public:
  virtual ~AuctionCosts() = default;
};
template <>
class AuctionCosts<std::int32_t> {
 public:
  virtual ~AuctionCosts() = default;
  /// See Backend.
  virtual AuctionResult auction_phase(std::span<const std::int64_t> size,
                                      const AuctionLimits& limits,
                                      std::span<std::int32_t> prices) const = 0;
};

/// A cost matrix, and who scans it as a whole.
template <class Cost>
class SiteCosts : public AuctionCosts<Cost> {
 public:
  std::size_t num_rows() const { return num_rows_; }
  std::size_t num_sites() const { return num_sites_; }
  /// Length of a row in memory, and of a row of every table of the solver.
  std::size_t stride() const { return stride_; }
  /// The costs in host memory; the first call may have to bring them there.
  const Cost* data() const {
    if (data_ == nullptr) data_ = bring_to_host();
    return data_;
  }
  const Cost* row(std::size_t i) const { return data() + i * stride_; }

  /// See Backend. prices [stride], padding kNoPrice.
  virtual PassResult price_passes(const SiteRoom& room, const PassLimits& limits,
                                  std::span<Cost> prices, Choice<Cost>& choice) const = 0;
  virtual void best_sites(std::span<const Cost> prices, bool with_margins,
                          Choice<Cost>& choice) const = 0;
  virtual std::vector<std::int32_t> tied_rows(std::span<const std::int32_t> label,
                                              std::span<const Cost> prices) const = 0;
  /// See Backend. key, row [num_sites, stride]; padding columns are undefined.
  virtual void smallest_moves(std::span<const std::int32_t> label, std::span<Cost> key,
                              std::span<std::int32_t> row) const = 0;
  /// See Backend.
  virtual bool list_moves(std::span<const std::int32_t> /*label*/, std::size_t /*length*/,
                          std::vector<MoveEntry<Cost>>& /*list*/) const {
    return false;
  }
  virtual InstructionSet instruction_set() const = 0;

 protected:
  SiteCosts(std::size_t num_rows, std::size_t num_sites, std::size_t stride)
      : num_rows_(num_rows), num_sites_(num_sites), stride_(stride) {}

 private:
  virtual const Cost* bring_to_host() const = 0;

  mutable const Cost* data_ = nullptr;
  std::size_t num_rows_;
  std::size_t num_sites_;
  std::size_t stride_;
};

/// Fixed-point costs that a Backend holds and scans.
class BackendCosts final : public SiteCosts<std::int32_t> {
 public:
  BackendCosts(Backend& backend, const CostView& q);
  PassResult price_passes(const SiteRoom& room, const PassLimits& limits,
                          std::span<std::int32_t> prices, SiteChoice& choice) const override;
  AuctionResult auction_phase(std::span<const std::int64_t> size, const AuctionLimits& limits,
                              std::span<std::int32_t> prices) const override;
  void best_sites(std::span<const std::int32_t> prices, bool with_margins,
                  SiteChoice& choice) const override;
  std::vector<std::int32_t> tied_rows(std::span<const std::int32_t> label,
                                      std::span<const std::int32_t> prices) const override;
  void smallest_moves(std::span<const std::int32_t> label, std::span<std::int32_t> key,
                      std::span<std::int32_t> row) const override;
  bool list_moves(std::span<const std::int32_t> label, std::size_t length,
                  std::vector<MoveEntry<std::int32_t>>& list) const override;
  InstructionSet instruction_set() const override { return backend_->instruction_set(); }

 private:
  const std::int32_t* bring_to_host() const override { return backend_->on_host(q_).data; }

  Backend* backend_;
  CostView q_;
};

/// Any int64 costs, scanned by plain loops.
class WideCosts final : public SiteCosts<std::int64_t> {
 public:
  explicit WideCosts(MatrixView<const std::int64_t> costs);
  PassResult price_passes(const SiteRoom& room, const PassLimits& limits,
                          std::span<std::int64_t> prices,
                          Choice<std::int64_t>& choice) const override;
  void best_sites(std::span<const std::int64_t> prices, bool with_margins,
                  Choice<std::int64_t>& choice) const override;
  std::vector<std::int32_t> tied_rows(std::span<const std::int32_t> label,
                                      std::span<const std::int64_t> prices) const override;
  void smallest_moves(std::span<const std::int32_t> label, std::span<std::int64_t> key,
                      std::span<std::int32_t> row) const override;
  InstructionSet instruction_set() const override { return InstructionSet::portable; }

 private:
  const std::int64_t* bring_to_host() const override { return costs_.data; }
  HostCosts<std::int64_t> host_costs() const {
    return {costs_.data, costs_.rows, costs_.cols, costs_.cols};
  }

  MatrixView<const std::int64_t> costs_;
  mutable PricePasses<std::int64_t> passes_;
};

}  // namespace moefy
