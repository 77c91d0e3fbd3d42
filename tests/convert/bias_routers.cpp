// Gives the routers of a map a selection bias, for tests that read the converted model with other
// programs:
//   bias_routers MAP OUT
// Expert e gets e · logit_std, so that other experts are chosen than without.

#include <cstdio>
#include <exception>

#include "moefy/store/expert_map.hpp"

int main(int argc, char** argv) {
  try {
    if (argc != 3) {
      std::fprintf(stderr, "usage: bias_routers MAP OUT\n");
      return 2;
    }
    moefy::ExpertMap map = moefy::read_expert_map(argv[1]);
    for (moefy::LayerResult& layer : map.layers)
      for (std::size_t expert = 0; expert < layer.partition.num_experts(); ++expert)
        layer.router.bias.push_back(static_cast<float>(expert) *
                                    static_cast<float>(layer.router.logit_std));
    moefy::write_expert_map(argv[2], map);
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "bias_routers: %s\n", error.what());
    return 1;
  }
}
