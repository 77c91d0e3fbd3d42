#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "moefy/core/error.hpp"
#include "moefy/jobs/context.hpp"
#include "moefy/router/router_fitter.hpp"

namespace moefy {

/// `moefy route`.
struct RouteJobConfig {
  std::string model;
  std::filesystem::path map;
  std::filesystem::path output;  ///< empty: in the map's place
  std::string router;            ///< empty: the map's own routers stay (with `evaluate`)
  RouterConfig fitting;          ///< top_k 0: the map's
  std::filesystem::path recordings;
  std::int64_t max_tokens = 200'000;
  std::string layers;  ///< empty: all of the map
  bool evaluate = false;
  std::string backend = "auto";     ///< who works on the recordings; its kind is a result option
  int device = 0;                   ///< run: GPU of the first rank of a host
  bool share_devices = false;       ///< run: several ranks may use the same GPU
  std::uint64_t device_memory = 0;  ///< run: bytes of a GPU to use at the most; 0: what is free
};

/// Every problem that can be told without opening a file.
std::vector<std::string> validate(const RouteJobConfig& config);

/// Fits a router to every chosen layer of a map, on all ranks, and measures it on the recordings if
/// asked to; writes the map anew by rename. Finished layers lie in MAP.h5.route.journal/ until
/// then. Collective. UsageError (map of another model, nothing to learn from, refitted map, more
/// ranks than GPUs), InputError, IoError, DeviceError, Interrupted.
ExitCode run_route(const RouteJobConfig& config, JobContext& context);

}  // namespace moefy
