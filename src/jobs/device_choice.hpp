#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "moefy/backend/backend.hpp"
#include "moefy/jobs/context.hpp"

namespace moefy {

/// Who computes on this rank.
struct DeviceChoice {
  std::string backend;     ///< "reference", "cpu" or "cuda": the same on every rank
  int device = 0;          ///< with cuda: index among the GPUs that this rank sees
  std::string model = {};  ///< with cuda: the GPU's
  bool shared = false;     ///< with cuda: some ranks share a GPU; the same on every rank
};

/// Collective. "auto" becomes "cuda" where every rank sees a GPU, else "cpu". With cuda the ranks
/// of a host take its GPUs in turn, beginning with `first_device`; with `share_devices` several may
/// have the same one, and rank 0 warns. UsageError, on all ranks, if there are more ranks than GPUs
/// and they must not share, or if a GPU is asked for (by --backend or --device) and CUDA is not
/// built in.
DeviceChoice choose_device(const std::string& backend, int first_device, bool share_devices,
                           JobContext& context);

/// Problems of --backend and --device that can be told without looking at devices.
std::vector<std::string> device_option_problems(const std::string& backend, int device);

/// CPU, instruction set and GPU, on which the last bits of results depend.
std::string kind_of_machine(const DeviceChoice& choice);
/// Warns if a journal that holds something was begun on another kind of machine (empty: unknown).
void warn_of_other_machine(const std::string& begun_on, const DeviceChoice& choice,
                           const std::function<void(const std::string&)>& warn);

/// The backend of the choice. Throws as the factories do.
std::unique_ptr<Backend> make_backend(const DeviceChoice& choice, std::size_t num_threads);

}  // namespace moefy
