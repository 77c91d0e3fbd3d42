#include "cuda/cublas_library.hpp"

#include <dlfcn.h>
#include <fmt/format.h>
#include <link.h>

#include <cstdlib>
#include <filesystem>
#include <vector>

#include "moefy/backend/cublas.hpp"
#include "moefy/core/error.hpp"
#include "moefy/core/library_function.hpp"

namespace moefy::cublas {
namespace {

namespace fs = std::filesystem;

std::string environment(const char* name) {
  const char* const value = std::getenv(name);
  return value == nullptr ? "" : value;
}

/// lib/python3.*/site-packages/nvidia/cu13/lib of a Python environment.
void add_wheels(const fs::path& environment, std::vector<fs::path>& folders) {
  std::error_code no_folder;
  for (const auto& entry : fs::directory_iterator(environment / "lib", no_folder)) {
    if (!entry.path().filename().string().starts_with("python3")) continue;
    folders.push_back(entry.path() / "site-packages/nvidia" / MOEFY_CUBLAS_WHEEL / "lib");
  }
}

std::vector<fs::path> candidates() {
  std::vector<fs::path> folders{""};
  for (const char* const toolkit : {"CUDA_HOME", "CUDA_PATH"}) {
    const std::string root = environment(toolkit);
    if (!root.empty()) folders.push_back(fs::path(root) / "lib64");
  }
  folders.emplace_back("/usr/local/cuda/lib64");
  for (const char* const python : {"VIRTUAL_ENV", "CONDA_PREFIX"}) {
    const std::string root = environment(python);
    if (root.empty()) continue;
    folders.push_back(fs::path(root) / "lib");
    add_wheels(root, folders);
  }
  for (fs::path& folder : folders) folder /= MOEFY_CUBLAS_FILE;
  return folders;
}

void* open(const std::string& file) { return dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL); }

template <class Function>
void find(void* handle, const char* name, Function*& function) {
  find_in_library<DeviceError>(handle, "cuBLAS", name, function);
}

/// Where the loader found it.
std::string path_of(void* handle) {
  link_map* map = nullptr;
  if (dlinfo(handle, RTLD_DI_LINKMAP, &map) != 0) return MOEFY_CUBLAS_FILE;
  return map->l_name;
}

Library bind(void* handle) {
  Library library{};
  library.file = path_of(handle);
  find(handle, "cublasCreate_v2", library.create);
  find(handle, "cublasDestroy_v2", library.destroy);
  find(handle, "cublasSetStream_v2", library.set_stream);
  find(handle, "cublasSetWorkspace_v2", library.set_workspace);
  find(handle, "cublasGemmEx", library.gemm);
  find(handle, "cublasGetStatusString", library.status_string);
  find(handle, "cublasGetProperty", library.get_property);
  return library;
}

}  // namespace

std::optional<Library> load() {
  const std::string named = environment("MOEFY_CUBLAS");
  if (named == "off") return std::nullopt;
  if (!named.empty()) {
    void* const handle = open(named);
    if (handle == nullptr) throw DeviceError(fmt::format("MOEFY_CUBLAS: {}", dlerror()));
    return bind(handle);
  }
  for (const fs::path& file : candidates()) {
    if (void* const handle = open(file)) return bind(handle);
  }
  return std::nullopt;
}

}  // namespace moefy::cublas

namespace moefy {

std::optional<CublasFile> find_cublas() {
  const auto library = cublas::load();
  if (!library) return std::nullopt;
  std::string version;
  for (const auto property : {cublas::major_version, cublas::minor_version, cublas::patch_level}) {
    int value = 0;
    if (library->get_property(property, &value) != cublas::success) continue;
    version += fmt::format("{}{}", version.empty() ? "" : ".", value);
  }
  return CublasFile{library->file, version};
}

std::string describe_cublas() {
  try {
    const auto found = find_cublas();
    return found ? fmt::format("cuBLAS {}: {}", found->version, found->file)
                 : "no cuBLAS, products by own kernels";
  } catch (const DeviceError& error) {
    return error.what();
  }
}

}  // namespace moefy
