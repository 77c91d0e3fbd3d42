#pragma once

#include "moefy/store/expert_map.hpp"

namespace moefy::test {

/// Shape of a made-up map.
struct SampleShape {
  std::int64_t num_layers = 3;
  std::size_t num_neurons = 12;
  std::size_t num_experts = 4;
  std::size_t num_shared = 0;  ///< each as wide as an expert
  std::size_t hidden_size = 5;
};

/// A valid map with every field filled, from a fixed seed; the numbers look like those of a real
/// clustering, but nothing was clustered.
ExpertMap sample_map(const SampleShape& shape = {});

}  // namespace moefy::test
