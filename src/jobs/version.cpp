#include "moefy/jobs/version.hpp"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "moefy/backend/backend.hpp"
#include "moefy/backend/cublas.hpp"
#include "moefy/balance/balanced_kmeans.hpp"
#include "moefy/comm/communicator.hpp"
#include "moefy/store/expert_map.hpp"
#include "moefy_build_info.hpp"

namespace moefy {

namespace {

std::string cuda_kernels() {
  if (!cuda_is_built()) return "not built";
  const int count = cuda_device_count();
  return fmt::format("built with CUDA {}; {}; {}", cuda_versions().runtime,
                     count == 0 ? fmt::format("no GPU here ({})", cuda_obstacle())
                                : fmt::format("GPUs here: {}", count),
                     describe_cublas());
}

}  // namespace

std::string version_line() { return "moefy " MOEFY_VERSION " (" MOEFY_GIT_HASH ")"; }

std::string version_report() {
  return fmt::format(
      "{}\n"
      "  compiler        {} ({})\n"
      "  MPI             {}\n"
      "  HDF5            {}\n"
      "  FAISS           {}\n"
      "  nlohmann-json   {}.{}.{}\n"
      "  fmt             {}.{}.{}\n"
      "  CPU kernels     {}\n"
      "  CUDA kernels    {}\n",
      version_line(), MOEFY_COMPILER, MOEFY_BUILD_TYPE, mpi_library_version(), hdf5_version(),
      faiss_version() + (faiss_gpu_obstacle().empty() ? "; faiss-gpu built" : ""),
      NLOHMANN_JSON_VERSION_MAJOR, NLOHMANN_JSON_VERSION_MINOR, NLOHMANN_JSON_VERSION_PATCH,
      FMT_VERSION / 10000, FMT_VERSION / 100 % 100, FMT_VERSION % 100,
      to_string(best_instruction_set()), cuda_kernels());
}

}  // namespace moefy
