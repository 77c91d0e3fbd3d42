#include "output_place.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "moefy/core/error.hpp"

namespace moefy {

namespace {

namespace fs = std::filesystem;

/// Without links and dots; as it was given where that cannot be told.
fs::path plain(const fs::path& path) {
  std::error_code error;
  fs::path canonical = fs::weakly_canonical(fs::absolute(path, error), error);
  if (error) return path;
  // "folder/" and "folder" are the same place.
  return canonical.has_filename() ? canonical : canonical.parent_path();
}

bool is_inside(const fs::path& path, const fs::path& folder) {
  const auto ends = std::mismatch(folder.begin(), folder.end(), path.begin(), path.end());
  return ends.first == folder.end();
}

bool is_file_of(const fs::path& path, const fs::path& folder) {
  std::error_code error;
  return fs::is_directory(folder, error) && fs::is_regular_file(path, error) &&
         path.parent_path() == folder && path.extension() != ".h5";
}

}  // namespace

void require_other_place(const fs::path& output, std::initializer_list<fs::path> inputs) {
  if (output.empty()) return;
  const fs::path place = plain(output);
  const auto refuse = [&](const std::string& why) {
    throw UsageError(
        fmt::format("{}: {}; choose another place for the output", output.string(), why));
  };
  for (const fs::path& input : inputs) {
    if (input.empty()) continue;
    const fs::path read = plain(input);
    if (is_inside(read, place))
      refuse(fmt::format("{} {}, which this command reads", read == place ? "this is" : "it holds",
                         input.string()));
    if (is_file_of(place, read)) refuse("it is a file of " + input.string());
  }
  if (is_inside(plain(fs::path(".")), place)) refuse("it holds the working directory");
}

void require_folder_place(const fs::path& output, std::initializer_list<fs::path> inputs) {
  require_other_place(output, inputs);
  std::error_code error;
  if (!fs::exists(output, error)) return;
  if (!fs::is_directory(output, error))
    throw UsageError(output.string() + " is a file; the output is a folder");
  if (!fs::exists(output / "config.json", error) && !fs::is_empty(output, error))
    throw UsageError(
        output.string() +
        " is a folder of something else than a model (it has no config.json); remove it "
        "or choose another place for the output");
}

void require_file_place(const fs::path& output, std::initializer_list<fs::path> inputs) {
  require_other_place(output, inputs);
  std::error_code error;
  if (fs::is_directory(output, error))
    throw UsageError(output.string() + " is a folder; the output is one file");
}

}  // namespace moefy
