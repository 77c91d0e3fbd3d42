#pragma once

#include <filesystem>
#include <initializer_list>

namespace moefy {

/// UsageError if writing `output` would take away what the command reads: it is one of `inputs`, a
/// folder that holds one (or the working directory), or a file of an input folder. Not even --force
/// allows that. Empty paths do not count.
void require_other_place(const std::filesystem::path& output,
                         std::initializer_list<std::filesystem::path> inputs);

/// The same for an output that is a folder: UsageError, too, if a file is there, or a folder that
/// holds something and no model (config.json): --force replaces models, not what else people keep.
void require_folder_place(const std::filesystem::path& output,
                          std::initializer_list<std::filesystem::path> inputs);

/// The same for an output that is one file: UsageError, too, if a folder is there.
void require_file_place(const std::filesystem::path& output,
                        std::initializer_list<std::filesystem::path> inputs);

}  // namespace moefy
