#pragma once

#include <memory>
#include <string>

#include "device_choice.hpp"
#include "moefy/backend/backend.hpp"
#include "moefy/comm/bulk_link.hpp"
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

}  // namespace moefy
