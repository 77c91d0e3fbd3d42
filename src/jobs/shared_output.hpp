#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "moefy/checkpoint/writer.hpp"
#include "moefy/core/file.hpp"
#include "moefy/jobs/context.hpp"

namespace moefy {

/// A folder that all ranks write into and that appears complete or not at all. Rank 0 owns it.
class SharedOutput {
 public:
  /// Collective: makes the staging folder on rank 0 and tells all ranks its path. IoError if a rank
  /// does not see it, or for too little space; UsageError if `target` is in the way.
  SharedOutput(JobContext& context, const std::filesystem::path& target, std::uint64_t bytes);

  const std::filesystem::path& staging() const { return staging_; }
  /// Rank 0: the folder takes its name.
  void commit();

 private:
  std::optional<OutputDirectory> directory_;
  std::filesystem::path staging_;
};

/// Runs work(i) for every weight on whichever rank is free and hands its text to `done` on rank 0
/// (in any order), under a progress bar in `unit`. Collective.
void share_work(JobContext& context, const std::string& task, const std::string& unit,
                std::span<const std::uint64_t> weights,
                const std::function<std::string(std::size_t, std::stop_token)>& work,
                const std::function<void(std::size_t, std::string)>& done = {});

/// The data bytes of every file of a plan: weights for share_work.
std::vector<std::uint64_t> file_weights(const ShardPlan& plan);

}  // namespace moefy
