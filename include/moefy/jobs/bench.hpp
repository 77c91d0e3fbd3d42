#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "moefy/core/error.hpp"
#include "moefy/jobs/context.hpp"

namespace moefy {

/// A matrix to cluster: `ROWSxCOLUMNS/EXPERTS` on the command line.
struct BenchShape {
  std::size_t rows = 0;
  std::size_t columns = 0;
  std::size_t experts = 0;
};

/// `moefy bench WHAT`.
struct BenchJobConfig {
  std::string what;                ///< assign, split, convert, link, faster, starts, kernels
  std::vector<BenchShape> shapes;  ///< empty: the published and model-shaped ones
  std::uint64_t bytes =
      1'000'000'000;   ///< convert: size of the synthetic checkpoint; link: a piece
  bool check = false;  ///< compare with the reference backend
  std::string backend = "auto";
  int device = 0;              ///< GPU of the first rank of a host
  bool share_devices = false;  ///< several ranks may use the same GPU
  int repeats = 5;
};

/// `6144x768/32,11008x512/16`; problems name the text.
std::vector<BenchShape> parse_shapes(const std::string& text, std::vector<std::string>& problems);
/// As on the command line.
std::string to_string(const BenchShape& shape);

/// Times parts of moefy, median of several runs, one JSON line each with --json: machine, versions,
/// seconds, rates, peak memory. All ranks run the same; rank 0 prints minimum, median and maximum
/// over ranks. Collective.
ExitCode run_bench(const BenchJobConfig& config, JobContext& context);

}  // namespace moefy
