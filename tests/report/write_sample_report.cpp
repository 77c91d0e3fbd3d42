// Writes the HTML report of the sample map:
//   write_sample_report FILE.html [LAYERS NEURONS EXPERTS SHARED HIDDEN [TITLE]]

#include <cstdio>
#include <exception>
#include <string>

#include "moefy/core/file.hpp"
#include "moefy/report/map_report.hpp"
#include "support/sample_map.hpp"

int main(int argc, char** argv) {
  try {
    if (argc != 2 && argc != 7 && argc != 8) {
      std::fprintf(stderr,
                   "usage: write_sample_report FILE.html "
                   "[LAYERS NEURONS EXPERTS SHARED HIDDEN [TITLE]]\n");
      return 2;
    }
    moefy::test::SampleShape shape;
    if (argc >= 7) {
      shape.num_layers = std::stoll(argv[2]);
      shape.num_neurons = std::stoull(argv[3]);
      shape.num_experts = std::stoull(argv[4]);
      shape.num_shared = std::stoull(argv[5]);
      shape.hidden_size = std::stoull(argv[6]);
    }
    const auto map = moefy::test::sample_map(shape);
    moefy::write_file_atomically(argv[1], moefy::map_html(map, argc == 8 ? argv[7] : "map.h5"));
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "write_sample_report: %s\n", error.what());
    return 1;
  }
}
