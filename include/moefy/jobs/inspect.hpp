#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "moefy/core/error.hpp"
#include "moefy/jobs/context.hpp"

namespace moefy {

/// `moefy inspect`.
struct InspectJobConfig {
  std::string subject;                ///< a map, a dense model, or what `moefy convert` wrote
  bool verify = false;                ///< recompute what the map claims; needs `model`
  std::string model;                  ///< dense model for `verify`: path or name
  std::filesystem::path html;         ///< write the report page there; empty: none
  std::string export_format;          ///< json or safetensors; empty: none
  std::filesystem::path export_file;  ///< -o
};

/// Every problem that can be told without opening a file.
std::vector<std::string> validate(const InspectJobConfig& config);

/// Prints tables (or JSON lines) about a map, a model's FFN layers, or a converted directory and
/// its map; writes the page or the export if asked. With `verify`, ExitCode::differs if the map is
/// not of that model, or if inertia or duality gap come out otherwise. Works on rank 0, the others
/// return at once. InputError for what cannot be read, UsageError for what does not fit the
/// subject.
ExitCode run_inspect(const InspectJobConfig& config, JobContext& context);

}  // namespace moefy
