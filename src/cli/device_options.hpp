#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

#include "option_table.hpp"

namespace moefy {

/// --backend, --device, --share-devices, --device-memory: the same for every command that may
/// compute on a GPU.
std::vector<OptionSpec> device_options();

/// Their values into the fields of a job's configuration that are named after them.
template <class Config>
void read_device_options(OptionValues& values, Config& config) {
  config.backend = values.text("backend");
  config.device = static_cast<int>(
      std::clamp<std::int64_t>(values.integer("device"), -1, std::numeric_limits<int>::max()));
  config.share_devices = values.flag("share-devices");
  config.device_memory = values.bytes("device-memory");
}

}  // namespace moefy
