#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "moefy/balance/assignment.hpp"
#include "moefy/core/matrix.hpp"
#include "site_costs.hpp"

namespace moefy {

/// Sizes, prices and labels while the exact solver works. Where some lower bound is below its upper
/// one there is a slack node, at index `slack()` of price and excess: it takes the free size, with
/// arcs of cost 0 to sites above their lower bound and from sites below their upper one.
template <class Cost>
struct FlowState {
  std::size_t num_rows = 0;
  std::size_t num_sites = 0;
  std::size_t stride = 0;  ///< num_sites, padded
  bool has_slack = false;
  std::vector<std::int64_t> lower, upper;  ///< [num_sites], upper at most num_rows + 1
  std::vector<std::int64_t> granted;       ///< [num_sites] size that a site has to get
  std::vector<std::int64_t> excess;        ///< [stride + 1] rows too many; negative: missing
  AlignedBuffer<Cost> price;               ///< [stride + 1], padding kNoPrice
  std::span<std::int32_t> label;           ///< [num_rows], minimisers of cost + price

  std::size_t slack() const { return stride; }
  std::span<const Cost> site_prices() const { return {price.data(), stride}; }
  std::span<Cost> site_prices() { return {price.data(), stride}; }
  SiteRoom room() const { return {lower, upper, !has_slack}; }

  /// Takes bounds and warm prices (clamped to ±kLargestCost: any start is legal, and so every sum
  /// of the solver fits its type).
  void reset(std::size_t rows, std::size_t row_stride, const Capacities& capacities,
             std::span<const Cost> start_prices);
  /// Grants every site the size that its price asks for, and finds what is too much or missing.
  void balance(std::span<const std::int64_t> count);
  /// Rows and free sizes in excess: the number of augmentations left.
  std::int64_t surplus() const;
  /// Shifts prices to their normal form: see normal_shift.
  void normalise_prices();
};

}  // namespace moefy
