#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>

#include "moefy/comm/communicator.hpp"

namespace moefy {
namespace {

using Environment = std::map<std::string, std::string>;

/// Rank, size, … as one launcher names them; the first variable that is set counts.
struct LauncherVariables {
  LaunchInfo::Kind kind;
  std::vector<std::string> rank, size, local_rank, local_size;
};

const LauncherVariables kOpenMpi{LaunchInfo::Kind::mpi,
                                 {"OMPI_COMM_WORLD_RANK"},
                                 {"OMPI_COMM_WORLD_SIZE"},
                                 {"OMPI_COMM_WORLD_LOCAL_RANK"},
                                 {"OMPI_COMM_WORLD_LOCAL_SIZE"}};
const LauncherVariables kPmi{LaunchInfo::Kind::mpi,
                             {"PMI_RANK", "PMIX_RANK"},
                             {"PMI_SIZE", "SLURM_STEP_NUM_TASKS"},
                             {"MPI_LOCALRANKID", "PMI_LOCAL_RANK", "SLURM_LOCALID"},
                             {"MPI_LOCALNRANKS", "PMI_LOCAL_SIZE"}};
const LauncherVariables kSlurm{
    LaunchInfo::Kind::mpi, {"SLURM_PROCID"}, {"SLURM_STEP_NUM_TASKS"}, {"SLURM_LOCALID"}, {}};
const LauncherVariables kTorchrun{
    LaunchInfo::Kind::torchrun, {"RANK"}, {"WORLD_SIZE"}, {"LOCAL_RANK"}, {"LOCAL_WORLD_SIZE"}};

/// Reads variables and keeps what is wrong with them.
class Reader {
 public:
  explicit Reader(const Environment& environment) : environment_(environment) {}

  std::optional<int> number(const std::vector<std::string>& names) {
    for (const std::string& name : names) {
      const auto found = environment_.find(name);
      if (found == environment_.end()) continue;
      const std::string& text = found->second;
      int value = 0;
      const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
      if (error != std::errc{} || end != text.data() + text.size() || value < 0) {
        problems_.push_back(fmt::format("{}={} is not a count", name, text));
        return std::nullopt;
      }
      return value;
    }
    return std::nullopt;
  }

  /// What `names` says, if its rank is set and all of it makes sense.
  std::optional<LaunchInfo> launcher(const LauncherVariables& names) {
    const std::optional<int> rank = number(names.rank);
    if (!rank) return std::nullopt;
    const std::optional<int> size = number(names.size);
    LaunchInfo info{names.kind, *rank, size.value_or(*rank + 1), 0, 1};
    info.local_rank = number(names.local_rank).value_or(0);
    info.local_size = number(names.local_size).value_or(info.local_rank + 1);
    if (info.rank >= info.size) problems_.push_back(outside(names.rank, info.rank, info.size));
    if (info.local_rank >= info.local_size) {
      problems_.push_back(outside(names.local_rank, info.local_rank, info.local_size));
    }
    return info;
  }

  bool has(const std::string& name) const { return environment_.contains(name); }
  void compare(const LaunchInfo& mpi, const LaunchInfo& other, const LauncherVariables& names) {
    const bool size_known = std::any_of(names.size.begin(), names.size.end(),
                                        [&](const std::string& name) { return has(name); });
    if (mpi.rank != other.rank || (size_known && mpi.size != other.size)) {
      problems_.push_back(fmt::format("two launchers disagree: rank {} of {} and rank {} of {}",
                                      mpi.rank, mpi.size, other.rank, other.size));
    }
  }

  void throw_problems() const {
    if (problems_.empty()) return;
    std::vector<std::string> lines{"cannot tell how this process was launched:"};
    for (const std::string& problem : problems_) lines.push_back("  " + problem);
    lines.push_back("found:");
    for (const LauncherVariables* names : {&kOpenMpi, &kPmi, &kSlurm, &kTorchrun}) {
      for (const auto* group :
           {&names->rank, &names->size, &names->local_rank, &names->local_size}) {
        for (const std::string& name : *group) add_found(lines, name);
      }
    }
    lines.push_back("start moefy with one launcher, or unset the variables that are left over");
    throw UsageError(lines);
  }

 private:
  static std::string outside(const std::vector<std::string>& names, int rank, int size) {
    return fmt::format("{}: rank {} is outside a size of {}", fmt::join(names, " or "), rank, size);
  }
  void add_found(std::vector<std::string>& lines, const std::string& name) const {
    const auto found = environment_.find(name);
    if (found == environment_.end()) return;
    std::string line = fmt::format("  {}={}", name, found->second);
    if (std::find(lines.begin(), lines.end(), line) == lines.end())
      lines.push_back(std::move(line));
  }

  const Environment& environment_;
  std::vector<std::string> problems_;
};

}  // namespace

LaunchInfo detect_launch(const Environment& environment) {
  Reader reader(environment);
  const auto open_mpi = reader.launcher(kOpenMpi);
  // mpirun inside a job starts its daemons by srun: the size of that step is not Open MPI's.
  const bool pmi_is_whole = !open_mpi || reader.has("PMI_SIZE");
  const auto pmi = pmi_is_whole ? reader.launcher(kPmi) : std::optional<LaunchInfo>{};
  // The batch shell of a job has SLURM_PROCID, too; only srun sets the size of a step.
  const auto slurm =
      reader.has("SLURM_STEP_NUM_TASKS") ? reader.launcher(kSlurm) : std::optional<LaunchInfo>{};
  // RANK alone is anybody's variable.
  const auto torchrun =
      reader.has("WORLD_SIZE") ? reader.launcher(kTorchrun) : std::optional<LaunchInfo>{};

  LaunchInfo info;
  if (open_mpi || pmi) {
    info = open_mpi ? *open_mpi : *pmi;
    if (open_mpi && pmi) reader.compare(*open_mpi, *pmi, kPmi);
    if (torchrun) reader.compare(info, *torchrun, kTorchrun);
  } else if (torchrun && torchrun->size > 1) {
    info = *torchrun;
  } else if (slurm && slurm->size > 1) {
    info = *slurm;
  }
  reader.throw_problems();
  return info;
}

std::map<std::string, std::string> process_environment() {
  Environment environment;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string text = *entry;
    const std::size_t equals = text.find('=');
    if (equals != std::string::npos) environment[text.substr(0, equals)] = text.substr(equals + 1);
  }
  return environment;
}

}  // namespace moefy
