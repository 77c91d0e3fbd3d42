#include "device_options.hpp"

#include "moefy/jobs/factories.hpp"

namespace moefy {

std::vector<OptionSpec> device_options() {
  return {
      {"backend", "NAME", "who computes", "auto", Shown::help_all, backend_names()},
      {"device", "N", "GPU of the first rank of a host; the others take the next", "0",
       Shown::help_all},
      {"share-devices", "", "let several ranks use the same GPU, if there are more ranks than GPUs",
       "", Shown::help_all},
      {"device-memory", "SIZE", "memory of a GPU to use at the most (default: what is free)", "",
       Shown::help_all},
  };
}

}  // namespace moefy
