#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "moefy/backend/backend.hpp"
#include "moefy/core/random.hpp"

namespace moefy::test {

/// The instruction sets that this CPU can run; the others are tested where they exist.
inline std::vector<std::string> testable_instruction_sets() {
  std::vector<std::string> names;
  for (InstructionSet set : {InstructionSet::portable, InstructionSet::avx2,
                             InstructionSet::avx512_vnni, InstructionSet::amx_int8}) {
    if (is_supported(set)) names.push_back(to_string(set));
  }
  return names;
}

/// What is compared with the reference: the instruction sets of this CPU, and "cuda" if it is
/// built.
inline std::vector<std::string> tested_backends() {
  std::vector<std::string> names = testable_instruction_sets();
  if (cuda_is_built()) names.push_back("cuda");
  return names;
}

/// One of each kind.
inline std::vector<std::string> kinds_of_backends() {
  std::vector<std::string> names{"reference", "cpu"};
  if (cuda_is_built()) names.push_back("cuda");
  return names;
}

inline std::vector<std::string> all_backends() {
  std::vector<std::string> names = tested_backends();
  names.insert(names.begin(), "reference");
  return names;
}

/// "cpu": with the best instruction set of this machine.
inline std::unique_ptr<Backend> make_backend(const std::string& name, std::size_t threads = 1) {
  if (name == "reference") return make_reference_backend(threads);
  if (name == "cuda") return make_cuda_backend(0, threads);
  return name == "cpu" ? make_cpu_backend(threads) : make_cpu_backend(threads, name);
}

/// Runs with the name of a backend.
class BackendTest : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    if (GetParam() == "cuda" && cuda_device_count() == 0) GTEST_SKIP() << "no NVIDIA GPU here";
  }
};

/// Has that backend.
class OneBackendTest : public BackendTest {
 protected:
  void SetUp() override {
    BackendTest::SetUp();
    if (!IsSkipped()) backend_ = make_backend(GetParam());
  }

  std::unique_ptr<Backend> backend_;
};

/// Around the edges of warps and blocks.
inline constexpr std::size_t kSizes[] = {1, 31, 32, 33, 257, 1000};

/// The name of a backend in that of a test.
inline std::string test_suffix(const testing::TestParamInfo<std::string>& parameter) {
  std::string name = parameter.param;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}

/// Standard normal values, keyed by `seed`.
inline Matrix<float> normal_matrix(std::size_t rows, std::size_t cols, std::uint64_t seed) {
  Matrix<float> matrix(rows, cols);
  RandomStream random(seed, 0, RandomPurpose::bench);
  for (float& value : matrix.values()) value = random.next_normal();
  return matrix;
}

inline std::vector<std::int32_t> all_columns(std::size_t count) {
  std::vector<std::int32_t> columns(count);
  for (std::size_t j = 0; j < count; ++j) columns[j] = static_cast<std::int32_t>(j);
  return columns;
}

/// Sums and counts of all sites.
struct SumsOnHost {
  std::vector<std::int64_t> sum;
  std::vector<std::int64_t> count;
  bool operator==(const SumsOnHost&) const = default;
};
inline SumsOnHost read(SiteSums& sums) {
  const SumsView view = sums.on_host(all_columns(sums.count.size()));
  const auto values = view.sum.values();
  return {{values.begin(), values.end()}, {view.count.begin(), view.count.end()}};
}
inline std::unique_ptr<SiteSums> empty_sums(Backend& backend, std::size_t sites, std::size_t dim,
                                            int scale_log2) {
  auto sums = backend.make_site_sums();
  sums->clear(sites, dim, scale_log2);
  return sums;
}
inline std::unique_ptr<Centroids> centroids_of(Backend& backend, const RowsView& values) {
  auto centroids = backend.make_centroids();
  centroids->resize(values.rows, values.cols);
  centroids->assign(values);
  return centroids;
}
inline std::vector<float> read(const Centroids& centroids) {
  const RowsView shape = centroids.view();
  std::vector<float> values(shape.size());
  centroids.read({values.data(), shape.rows, shape.cols});
  return values;
}

struct Shape {
  std::size_t rows;
  std::size_t sites;
  std::size_t dim;
};

/// Around every tile edge: rows of groups and tasks, columns of panels, elements of vectors.
inline std::vector<Shape> edge_shapes() {
  std::vector<Shape> shapes;
  for (std::size_t rows : kSizes) shapes.push_back({rows, 17, 63});
  for (std::size_t sites : {1, 2, 16, 17, 33, 100}) shapes.push_back({257, sites, 65});
  for (std::size_t dim : {1, 3, 4, 63, 64, 65}) shapes.push_back({33, 33, dim});
  shapes.push_back({1000, 100, 64});
  return shapes;
}

}  // namespace moefy::test
