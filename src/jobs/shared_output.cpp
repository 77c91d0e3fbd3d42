#include "shared_output.hpp"

#include <fmt/format.h>

#include "moefy/checkpoint/writer.hpp"
#include "moefy/core/progress.hpp"
#include "moefy/core/text.hpp"
#include "moefy/schedule/layer_queue.hpp"

namespace moefy {

SharedOutput::SharedOutput(JobContext& context, const std::filesystem::path& target,
                           std::uint64_t bytes) {
  together(context.comm, [&] {
    if (!context.is_root()) return;
    require_free_space(target, bytes);
    directory_.emplace(target, context.force);
    staging_ = std::filesystem::absolute(directory_->staging());
  });
  std::vector<std::byte> path = to_bytes(staging_.native());
  context.comm.broadcast(path);
  staging_ = to_text(path);
  together(context.comm, [&] {
    if (!std::filesystem::is_directory(staging_))
      throw IoError(
          fmt::format("rank {} does not see {}; the output must lie on a file system that "
                      "all ranks share",
                      context.comm.rank(), staging_.string()));
  });
}

void SharedOutput::commit() {
  if (directory_) directory_->commit();
}

void share_work(JobContext& context, const std::string& task, const std::string& unit,
                std::span<const std::uint64_t> weights,
                const std::function<std::string(std::size_t, std::stop_token)>& work,
                const std::function<void(std::size_t, std::string)>& done) {
  std::vector<QueueItem> items;
  for (std::size_t i = 0; i < weights.size(); ++i)
    items.push_back({static_cast<std::int64_t>(i), weights[i], 0});
  Progress progress(task, items.size(), unit,
                    context.is_root() ? context.progress : Progress::Style::quiet);
  QueueCallbacks callbacks;
  callbacks.work = [&](std::int64_t id, PayloadReader*, std::stop_token stop) {
    return to_bytes(work(static_cast<std::size_t>(id), stop));
  };
  callbacks.commit = [&](std::int64_t id, int, std::vector<std::byte> result) {
    if (done) done(static_cast<std::size_t>(id), to_text(result));
    progress.advance(1);
  };
  run_queue(context.comm, items, callbacks, context.stop);
}

std::vector<std::uint64_t> file_weights(const ShardPlan& plan) {
  std::vector<std::uint64_t> weights;
  for (const ShardPlan::File& file : plan.files) {
    weights.push_back(1);
    for (const TensorSpec& tensor : file.tensors) weights.back() += tensor.num_bytes();
  }
  return weights;
}

}  // namespace moefy
