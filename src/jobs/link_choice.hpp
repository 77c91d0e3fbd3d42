#pragma once

#include <memory>
#include <string>

#include "device_choice.hpp"
#include "moefy/backend/backend.hpp"
#include "moefy/comm/bulk_link.hpp"
#include "moefy/comm/device_reducer.hpp"
#include "moefy/jobs/context.hpp"

namespace moefy {

/// How layers reach the ranks that work on them.
struct LayerLink {
  std::unique_ptr<BulkLink> link;  ///< null: host messages, or nothing travels
  std::string description;         ///< for the rank table
};

/// NCCL where rank 0 sends the layers, every rank has a GPU of its own that takes them as they lie
/// in the file (`into_device`), and all ranks can load it; else host messages. Collective.
LayerLink choose_link(bool local_feed, const DeviceChoice& device, bool into_device,
                      Backend& backend, JobContext& context);

/// How the sums of ranks that share the rows of a layer come together.
struct SumLink {
  std::unique_ptr<DeviceReducer> reducer;  ///< null: host messages, or nobody else to add to
  std::string description;                 ///< for the rank table
};

/// NCCL where every rank has a GPU of its own and all ranks can load it; else host messages.
/// `group`: the ranks of `comm` that share rows with this one. Collective over `comm`. Throws
/// CommError, DeviceError on all ranks.
SumLink choose_sum_link(Communicator& comm, Communicator& group, const DeviceChoice& device,
                        Backend& backend);

}  // namespace moefy
