#pragma once

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
};

/// Every problem that can be told without opening a file.
std::vector<std::string> validate(const RouteJobConfig& config);

/// Fits a router to every chosen layer of a map, on all ranks, and measures it on the recordings if
/// asked to; writes the map anew by rename. Finished layers lie in MAP.h5.route.journal/ until
/// then. Collective. UsageError (map of another model, nothing to learn from, refitted map),
/// InputError, IoError, Interrupted.
ExitCode run_route(const RouteJobConfig& config, JobContext& context);

}  // namespace moefy
