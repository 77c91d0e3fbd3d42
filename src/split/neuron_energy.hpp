#pragma once

#include <vector>

#include "moefy/model/calibration_tokens.hpp"

namespace moefy {

/// Σ_t h_ti² ‖down_i‖² of each neuron i [num_neurons]: what it adds to the layer's output.
std::vector<double> neuron_energies(CalibrationTokens& tokens);

}  // namespace moefy
