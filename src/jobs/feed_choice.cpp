#include "feed_choice.hpp"

#include "moefy/core/error.hpp"

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
  const std::string trouble =
      first_trouble(context.comm, trouble_here(config, context, identity, source));
  if (trouble.empty()) return true;
  if (config.feed == "local")
    throw InputError("--feed local: not every rank can read the model; " + trouble);
  if (context.is_root()) context.log.info("rank 0 sends the layers (" + trouble + ")");
  return false;
}

}  // namespace moefy
