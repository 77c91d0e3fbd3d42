// cluster_rows FILE.npy EXPERTS [SEEDS [BACKEND [START [THREADS]]]]: balanced k-means of the
// float32 rows in FILE, on one thread by default, one JSON line a seed. BACKEND: an instruction set
// of the CPU ("auto": the best one) or "cuda". The time is that of BalancedKMeans::run alone; the
// rows are in memory before, and buffers are kept from seed to seed as they are from layer to
// layer.

#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <string>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "moefy/balance/balanced_kmeans.hpp"
#include "moefy/core/error.hpp"
#include "moefy/core/file.hpp"

namespace {

using moefy::InputError;

/// A version 1 .npy file of float32 in C order.
moefy::Matrix<float> read_npy(const std::string& path) {
  const moefy::InputFile file(path);
  std::array<unsigned char, 10> head{};
  file.read(0, std::as_writable_bytes(std::span(head)));
  const std::size_t header_size = head[8] + 256U * head[9];
  std::string header(header_size, ' ');
  file.read(head.size(), std::as_writable_bytes(std::span(header)));
  std::size_t rows = 0;
  std::size_t cols = 0;
  const std::size_t shape = header.find("'shape': (");
  if (header.find("'<f4'") == std::string::npos || shape == std::string::npos ||
      std::sscanf(header.c_str() + shape, "'shape': (%zu, %zu)", &rows, &cols) != 2) {
    throw InputError(path + ": expected a .npy file with a float32 matrix");
  }
  moefy::Matrix<float> matrix(rows, cols);
  file.read(head.size() + header_size, std::as_writable_bytes(matrix.values()));
  return matrix;
}

/// Peak resident memory of this process, from /proc.
std::size_t peak_kilobytes() {
  std::ifstream status("/proc/self/status");
  std::string word;
  while (status >> word) {
    std::size_t kilobytes = 0;
    if (word == "VmHWM:" && status >> kilobytes) return kilobytes;
  }
  return 0;
}

/// CPU time of this process: on a busy machine it says more than the wall clock.
double cpu_seconds() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

void run(int argc, char** argv) {
  if (argc < 3) {
    throw moefy::UsageError(
        "usage: cluster_rows FILE.npy EXPERTS [SEEDS [BACKEND [START [THREADS]]]]");
  }
  const moefy::Matrix<float> rows = read_npy(argv[1]);
  const auto experts = static_cast<std::size_t>(std::strtoull(argv[2], nullptr, 10));
  const std::uint64_t seeds = argc > 3 ? std::strtoull(argv[3], nullptr, 10) : 3;
  const std::string kind = argc > 4 ? argv[4] : "auto";
  const std::size_t threads = argc > 6 ? std::strtoull(argv[6], nullptr, 10) : 1;
  const auto backend = kind == "cuda" ? moefy::make_cuda_backend(0, threads)
                                      : moefy::make_cpu_backend(threads, kind);
  moefy::BalancedKMeansConfig config;
  if (argc > 5) config.start = moefy::start_method(argv[5]);
  moefy::BalancedKMeans clustering(*backend);
  const auto capacities = moefy::Capacities::balanced(rows.rows(), experts);
  for (config.seed = 0; config.seed < seeds; ++config.seed) {
    const auto begin = std::chrono::steady_clock::now();
    const double cpu_begin = cpu_seconds();
    const moefy::BalancedKMeansResult result = clustering.run(rows.view(), capacities, config, 0);
    const double cpu = cpu_seconds() - cpu_begin;
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - begin;
    nlohmann::json line = {{"seed", config.seed},
                           {"seconds", elapsed.count()},
                           {"cpu_seconds", cpu},
                           {"inertia", result.inertia},
                           {"gap", result.duality_gap},
                           {"iterations", result.trace.size()},
                           {"stop_reason", moefy::to_string(result.stop_reason)},
                           {"backend", backend->name()},
                           {"peak_kilobytes", peak_kilobytes()}};
    for (const auto& [phase, seconds] : result.seconds) line["phases"][phase] = seconds;
    fmt::print("{}\n", line.dump());
  }
}

}  // namespace

int main(int argc, char** argv) {
  try {
    run(argc, argv);
    return 0;
  } catch (const moefy::Error& error) {
    fmt::print(stderr, "cluster_rows: {}\n", error.what());
    return static_cast<int>(error.code());
  }
}
