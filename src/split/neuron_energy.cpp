#include "neuron_energy.hpp"

namespace moefy {

std::vector<double> neuron_energies(CalibrationTokens& tokens) {
  std::vector<double> energy(tokens.layer().num_neurons(), 0.0);
  tokens.for_each_block([&](const CalibrationTokens::Block& block) {
    tokens.algebra().add_squares_of_columns(block.hidden, energy);
  });
  const std::vector<double> squares = tokens.algebra().squared_row_norms(tokens.ffn().down());
  for (std::size_t i = 0; i < energy.size(); ++i) energy[i] *= squares[i];
  return energy;
}

}  // namespace moefy
