#include "device_choice.hpp"

#include <algorithm>
#include <optional>
#include <set>
#include <utility>

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "machine.hpp"
#include "moefy/backend/instruction_set.hpp"
#include "moefy/core/error.hpp"
#include "moefy/core/host.hpp"
#include "moefy/core/text.hpp"
#include "moefy/jobs/factories.hpp"

namespace moefy {

namespace {

using nlohmann::json;

/// Host and GPUs of every rank, in the order of the ranks; known to all.
json gather_devices(Communicator& comm) {
  json mine = {{"host", host_name()}, {"places", json::array()}, {"models", json::array()}};
  together(comm, [&] {
    for (int index = 0; index < cuda_device_count(); ++index) {
      const CudaDevice device = cuda_device(index);
      mine["places"].push_back(device.place);
      mine["models"].push_back(device.model);
    }
  });
  json all = json::array();
  for (const std::vector<std::byte>& bytes : comm.gather(to_bytes(mine.dump()))) {
    all.push_back(json::parse(to_text(bytes)));
  }
  std::vector<std::byte> text = to_bytes(all.dump());
  comm.broadcast(text);
  return json::parse(to_text(text));
}

/// GPU of `rank` among those it sees: the ranks of a host take them in turn.
int device_of(const json& ranks, std::size_t rank, int first_device) {
  const std::size_t count = ranks[rank]["places"].size();
  if (count == 0) return first_device;
  std::size_t before = 0;
  for (std::size_t other = 0; other < rank; ++other) {
    before += ranks[other]["host"] == ranks[rank]["host"] ? 1 : 0;
  }
  // A first device that is not there stays what it is, and is refused by name.
  const auto first = static_cast<std::size_t>(first_device);
  return first < count ? static_cast<int>((first + before) % count) : first_device;
}

/// A host on which ranks share a GPU.
struct CrowdedHost {
  std::string name;
  std::size_t ranks = 0;
  std::size_t devices = 0;  ///< that any of these ranks sees
};

/// The first of them; none if every rank has a GPU of its own.
std::optional<CrowdedHost> find_crowded_host(const json& ranks, int first_device) {
  std::set<std::pair<std::string, std::string>> used;
  for (std::size_t rank = 0; rank < ranks.size(); ++rank) {
    const json& places = ranks[rank]["places"];
    const auto device = static_cast<std::size_t>(device_of(ranks, rank, first_device));
    if (device >= places.size()) continue;
    if (used.emplace(ranks[rank]["host"], places[device]).second) continue;
    CrowdedHost host{ranks[rank]["host"]};
    std::set<std::string> seen;
    for (const json& other : ranks) {
      if (other["host"] != ranks[rank]["host"]) continue;
      ++host.ranks;
      for (const json& place : other["places"]) seen.insert(place);
    }
    host.devices = seen.size();
    return host;
  }
  return std::nullopt;
}

std::string devices_text(std::size_t count) {
  return fmt::format("{} GPU{}", count, count == 1 ? "" : "s");
}

}  // namespace

DeviceChoice choose_device(const std::string& backend, int first_device, bool share_devices,
                           JobContext& context) {
  if (backend != "auto" && backend != "cuda") return {.backend = backend};
  if (!cuda_is_built()) {
    if (backend == "auto" && first_device == 0) return {.backend = "cpu"};
    make_cuda_backend(0, 1);  // says that it is not built
  }
  const json ranks = gather_devices(context.comm);
  bool all_have_one = true;
  for (const json& rank : ranks) all_have_one = all_have_one && !rank["places"].empty();
  if (backend == "auto" && first_device == 0 && !all_have_one) return {.backend = "cpu"};
  const std::optional<CrowdedHost> crowded = find_crowded_host(ranks, first_device);
  if (crowded && !share_devices) {
    throw UsageError(fmt::format(
        "more ranks than GPUs on {}: {} ranks, {}; start as many ranks as GPUs, let ranks share "
        "them (--share-devices), or use none (--backend cpu)",
        crowded->name, crowded->ranks, devices_text(crowded->devices)));
  }
  if (context.is_root() && crowded) {
    context.log.warning(
        fmt::format("{} ranks share {} on {}, and the memory there; a rank a GPU "
                    "is faster",
                    crowded->ranks, devices_text(crowded->devices), crowded->name));
  }
  const auto own_rank = static_cast<std::size_t>(context.comm.rank());
  const int device = device_of(ranks, own_rank, first_device);
  const json& models = ranks[own_rank]["models"];
  const auto index = static_cast<std::size_t>(device);
  return {"cuda", device, index < models.size() ? models[index].get<std::string>() : "",
          crowded.has_value()};
}

std::vector<std::string> device_option_problems(const std::string& backend, int device) {
  std::vector<std::string> problems;
  const std::vector<std::string> known = backend_names();
  if (std::ranges::find(known, backend) == known.end())
    problems.push_back(
        fmt::format("--backend '{}' is unknown{}", backend, suggestion(backend, known)));
  if (device < 0) problems.push_back(fmt::format("--device {}: at least 0 is needed", device));
  if (device > 0 && (backend == "cpu" || backend == "reference"))
    problems.push_back(fmt::format("--device {} is for --backend cuda, not '{}'", device, backend));
  return problems;
}

std::string kind_of_machine(const DeviceChoice& choice) {
  return cpu_model() + ", " + to_string(best_instruction_set()) +
         (choice.model.empty() ? "" : ", " + choice.model);
}

void warn_of_other_machine(const std::string& begun_on, const DeviceChoice& choice,
                           const std::function<void(const std::string&)>& warn) {
  const std::string here = kind_of_machine(choice);
  if (begun_on.empty() || begun_on == here) return;
  warn(
      fmt::format("this run was begun on another kind of machine ({}; this is {}); every "
                  "layer is exact on its own, but a run on one kind may differ in roundings",
                  begun_on, here));
}

std::unique_ptr<Backend> make_backend(const DeviceChoice& choice, std::size_t num_threads) {
  if (choice.backend == "cuda") return make_cuda_backend(choice.device, num_threads);
  return make_backend(choice.backend, num_threads);
}

}  // namespace moefy
