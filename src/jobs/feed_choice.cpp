#include "feed_choice.hpp"

#include <vector>

#include "moefy/core/text.hpp"

namespace moefy {

namespace {

/// Why this rank cannot read rank 0's files; empty if it can.
std::string trouble_here(const SplitJobConfig& config, const JobContext& context,
                         const std::string& identity, std::optional<ModelSource>& source) {
  if (context.is_root()) return {};
  try {
    source = open_model(config.model, context.architecture_file);
  } catch (const Error& error) {
    return error.what();
  }
  return file_identity_json(source->checkpoint) == identity ? "" : "its files differ from rank 0's";
}

}  // namespace

bool choose_local_feed(const SplitJobConfig& config, JobContext& context,
                       const std::string& identity, std::optional<ModelSource>& source) {
  if (config.feed == "coordinator") return false;
  const std::vector<std::vector<std::byte>> troubles =
      context.comm.gather(to_bytes(trouble_here(config, context, identity, source)));
  // Only rank 0 has heard all of them.
  std::vector<std::byte> first;
  for (std::size_t rank = 0; rank < troubles.size() && first.empty(); ++rank)
    if (!troubles[rank].empty())
      first = to_bytes("rank " + std::to_string(rank) + ": " + to_text(troubles[rank]));
  context.comm.broadcast(first);
  if (first.empty()) return true;
  if (config.feed == "local")
    throw InputError("--feed local: not every rank can read the model; " + to_text(first));
  if (context.is_root()) context.log.info("rank 0 sends the layers (" + to_text(first) + ")");
  return false;
}

}  // namespace moefy
