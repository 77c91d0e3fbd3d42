#include "bench_rows.hpp"

#include <algorithm>

#include "moefy/core/random.hpp"

namespace moefy {

const std::vector<BenchShape>& model_shapes() {
  static const std::vector<BenchShape> shapes = {
      {1536, 576, 16}, {6144, 768, 32}, {11008, 512, 16}, {14336, 512, 64}};
  return shapes;
}

Matrix<float> uneven_blobs(const BenchShape& shape) {
  RandomStream random(0, shape.rows, RandomPurpose::bench);
  Matrix<float> centres(shape.experts, shape.columns);
  for (float& value : centres.values()) value = 0.5f * random.next_normal();
  std::vector<double> cumulative;
  double total = 0;
  for (std::size_t j = 0; j < shape.experts; ++j)
    cumulative.push_back(total += 1.0 / static_cast<double>(1 + j));
  Matrix<float> rows(shape.rows, shape.columns);
  for (std::size_t i = 0; i < shape.rows; ++i) {
    const double draw = random.next_unit() * total;
    const auto blob = std::ranges::upper_bound(cumulative, draw) - cumulative.begin();
    const auto centre = centres.row(std::min(static_cast<std::size_t>(blob), shape.experts - 1));
    const auto row = rows.row(i);
    for (std::size_t l = 0; l < shape.columns; ++l) row[l] = centre[l] + random.next_normal();
  }
  return rows;
}

}  // namespace moefy
