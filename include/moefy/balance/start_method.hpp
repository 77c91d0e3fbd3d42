#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace moefy {

/// Where the centroids of balanced k-means begin.
enum class StartMethod {
  faiss,      ///< FAISS' Clustering over the backend's own search
  faiss_gpu,  ///< FAISS' Clustering over FAISS' own index on the backend's GPU
  kmeanspp,
  random,
};

/// Names as on the command line: "faiss", "faiss-gpu", "kmeans++", "random".
std::vector<std::string> start_names();
std::string to_string(StartMethod start);
std::optional<StartMethod> find_start_method(const std::string& name);
/// UsageError for a name that is none of these.
StartMethod start_method(const std::string& name);

/// Why this build has no StartMethod::faiss_gpu; empty if it has.
std::string faiss_gpu_obstacle();

/// Bytes of a GPU that StartMethod::faiss_gpu takes beside the centroids: FAISS copies rows in
/// pieces of 256 MiB, and needs distances and cuBLAS' work space.
inline constexpr std::uint64_t kFaissGpuBytes = std::uint64_t{512} << 20;

}  // namespace moefy
