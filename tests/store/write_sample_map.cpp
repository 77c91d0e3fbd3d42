// Writes the sample map, for tests that read it with other programs:
//   write_sample_map FILE [LAYERS NEURONS EXPERTS SHARED HIDDEN]

#include <cstdio>
#include <exception>
#include <string>

#include "support/sample_map.hpp"

int main(int argc, char** argv) {
  try {
    if (argc != 2 && argc != 7) {
      std::fprintf(stderr, "usage: write_sample_map FILE [LAYERS NEURONS EXPERTS SHARED HIDDEN]\n");
      return 2;
    }
    moefy::test::SampleShape shape;
    if (argc == 7) {
      shape.num_layers = std::stoll(argv[2]);
      shape.num_neurons = std::stoull(argv[3]);
      shape.num_experts = std::stoull(argv[4]);
      shape.num_shared = std::stoull(argv[5]);
      shape.hidden_size = std::stoull(argv[6]);
    }
    moefy::write_expert_map(argv[1], moefy::test::sample_map(shape));
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "write_sample_map: %s\n", error.what());
    return 1;
  }
}
