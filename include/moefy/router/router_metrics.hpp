#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "moefy/model/calibration_tokens.hpp"
#include "moefy/partition/layer_result.hpp"

namespace moefy {

/// Prefix of the names of these figures in LayerResult::metrics.
inline constexpr const char* kRouterMetric = "router_";

/// How good a router's choice of `top_k` experts a token is, on recorded tokens, beside the best
/// choice (oracle) and a keyed random one:
///   router_captured_mass   mean over tokens of the chosen experts' share of the oracle scores
///   router_recall          share of the top_k experts by oracle score that are chosen
///   router_kept_energy     share of Σ ‖y_e‖² that the chosen experts' outputs y_e carry
///   router_output_error    Σ_t ‖y_t - y'_t‖² / Σ_t ‖y_t‖², y' with the chosen and shared experts
/// and each with _oracle and _random behind it (recall: _random only). The oracle chooses by oracle
/// score for the captured mass, by ‖y_e‖ for the others. y is the dense output also where experts
/// share neurons. Names ascending.
std::vector<std::pair<std::string, double>> measure_router(CalibrationTokens& tokens,
                                                           const NeuronLists& lists,
                                                           const RouterWeights& router,
                                                           std::int64_t top_k, std::uint64_t seed);

}  // namespace moefy
