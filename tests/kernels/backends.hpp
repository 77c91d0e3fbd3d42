#pragma once

#include <memory>
#include <string>
#include <vector>

#include "moefy/backend/backend.hpp"
#include "moefy/core/random.hpp"

namespace moefy::test {

/// The instruction sets that this CPU can run; the others are tested where they exist.
inline std::vector<std::string> testable_instruction_sets() {
  std::vector<std::string> names;
  for (InstructionSet set :
       {InstructionSet::portable, InstructionSet::avx2, InstructionSet::avx512_vnni}) {
    if (is_supported(set)) names.push_back(to_string(set));
  }
  return names;
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

struct Shape {
  std::size_t rows;
  std::size_t sites;
  std::size_t dim;
};

/// Around every tile edge: rows of groups and tasks, columns of panels, elements of vectors.
inline std::vector<Shape> edge_shapes() {
  std::vector<Shape> shapes;
  for (std::size_t rows : {1, 31, 32, 33, 257, 1000}) shapes.push_back({rows, 17, 63});
  for (std::size_t sites : {1, 2, 16, 17, 33, 100}) shapes.push_back({257, sites, 65});
  for (std::size_t dim : {1, 3, 4, 63, 64, 65}) shapes.push_back({33, 33, dim});
  shapes.push_back({1000, 100, 64});
  return shapes;
}

}  // namespace moefy::test
