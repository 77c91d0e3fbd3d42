#include "link_choice.hpp"

namespace moefy {

LayerLink choose_link(bool local_feed, const DeviceChoice& device, bool into_device,
                      Backend& backend, JobContext& context) {
  if (context.comm.size() == 1) return {};
  if (local_feed) return {nullptr, "every rank reads its own"};
  const std::string sent = "sent by rank 0 ";
  if (device.backend != "cuda") return {nullptr, sent + "as host messages"};
  if (!into_device) return {nullptr, sent + "as host messages (recordings are read on the host)"};
  if (device.shared) return {nullptr, sent + "as host messages (ranks share a GPU)"};
  std::string why_not;
  std::unique_ptr<BulkLink> link = make_nccl_link(context.comm, backend, why_not);
  if (!link) return {nullptr, sent + "as host messages (" + why_not + ")"};
  std::string description = sent + "over " + link->name();
  return {std::move(link), std::move(description)};
}

SumLink choose_sum_link(Communicator& comm, Communicator& group, const DeviceChoice& device,
                        Backend& backend) {
  if (device.backend != "cuda") return {nullptr, "sums as host messages"};
  if (device.shared) return {nullptr, "sums as host messages (ranks share a GPU)"};
  const std::string obstacle = nccl_obstacle(comm);
  if (!obstacle.empty()) return {nullptr, "sums as host messages (" + obstacle + ")"};
  SumLink link;
  together(comm, [&] {
    if (group.size() > 1) link.reducer = make_nccl_reducer(group, backend);
  });
  if (link.reducer) link.description = "sums over " + link.reducer->name();
  return link;
}

}  // namespace moefy
