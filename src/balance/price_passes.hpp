#pragma once

#include <cstdint>
#include <vector>

#include "flow_state.hpp"

namespace moefy {

/// When price passes end.
struct PassLimits {
  int max_passes = 12;
  std::int64_t target = 0;    ///< imbalance that is good enough
  std::int64_t min_gain = 0;  ///< a pass that lowers the imbalance by less is the last one
  double damping = 0.5;       ///< share of an imbalance that a pass tries to move
};

struct PassResult {
  std::int64_t imbalance_before = 0;
  std::int64_t imbalance = 0;
  std::int64_t passes = 0;
};

/// Dual ascent by order statistics: sites with too many rows raise their price by the margin at
/// which a share of what is too much leaves; sites with too few lower it until as many come. All
/// sites move at once, from the same state (Jacobi). Order statistics are exact, so results are
/// too.
template <class Cost>
class PricePasses {
 public:
  /// Starts at state.price, leaves the prices with the least imbalance there and their labels in
  /// `choice`.
  PassResult run(const SiteCosts<Cost>& costs, const PassLimits& limits, FlowState<Cost>& state,
                 Choice<Cost>& choice);

 private:
  void step(const SiteCosts<Cost>& costs, double damping, FlowState<Cost>& state,
            const Choice<Cost>& choice);
  void raise(double damping, const FlowState<Cost>& state, const Choice<Cost>& choice);
  void lower(const SiteCosts<Cost>& costs, double damping, const FlowState<Cost>& state,
             const Choice<Cost>& choice);

  bool expect_passes_ = false;  // whether the last call needed them; decides about work only
  std::vector<Cost> change_;    // [num_sites] of the prices
  std::vector<std::vector<Cost>> margins_;
  std::vector<Cost> entry_;
  std::vector<Cost> best_price_;
};

}  // namespace moefy
