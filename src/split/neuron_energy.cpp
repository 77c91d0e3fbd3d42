#include "neuron_energy.hpp"

#include <algorithm>

namespace moefy {

std::vector<double> neuron_energies(CalibrationTokens& tokens) {
  constexpr std::size_t kColumns = 64;
  const FfnLayer& layer = tokens.layer();
  std::vector<double> energy(layer.num_neurons(), 0.0);
  tokens.for_each_block([&](const CalibrationTokens::Block& block) {
    const std::size_t tiles = (energy.size() + kColumns - 1) / kColumns;
    tokens.threads().for_each(tiles, [&](std::size_t tile) {
      const std::size_t end = std::min(energy.size(), (tile + 1) * kColumns);
      for (std::size_t t = 0; t < block.hidden.rows; ++t) {
        const std::span<const float> row = block.hidden.row(t);
        for (std::size_t i = tile * kColumns; i < end; ++i)
          energy[i] += static_cast<double>(row[i]) * static_cast<double>(row[i]);
      }
    });
  });
  const std::vector<double> squares = squared_row_norms(layer.down.view(), tokens.threads());
  for (std::size_t i = 0; i < energy.size(); ++i) energy[i] *= squares[i];
  return energy;
}

}  // namespace moefy
