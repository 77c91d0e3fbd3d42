#include "cuda/cuda_backend.hpp"

#include <cmath>

#include "cuda/cuda_points.hpp"
#include "moefy/core/error.hpp"

namespace moefy {

void CudaBackend::upload_columns(MatrixView<const float> centroids,
                                 std::span<const std::int32_t> which, Columns& columns) {
  const std::size_t dim = centroids.cols;
  columns.resize(which.size(), dim);
  if (which.size() == centroids.rows) {
    stream_.upload(std::span<const float>(centroids.values()), columns.vectors.data());
    return;
  }
  columns.packed.clear();
  for (const std::int32_t j : which) {
    const auto vector = centroids.row(static_cast<std::size_t>(j));
    columns.packed.insert(columns.packed.end(), vector.begin(), vector.end());
  }
  stream_.upload(std::span<const float>(columns.packed), columns.vectors.data());
}

cuda::CostColumns CudaBackend::cost_columns(std::span<const std::int32_t> which, int scale_log2,
                                            const CostView& q) {
  written(q);
  stream_.upload(which, which_.resize(which.size()));
  return {which_.data(), q.data, q.stride, std::ldexp(1.0F, scale_log2)};
}

void CudaBackend::costs(const Points& points, MatrixView<const float> centroids, int scale_log2,
                        std::span<const std::int32_t> columns, const CostView& q) {
  enter();
  const cuda::CudaPoints& x = cuda::own(points);
  upload_columns(centroids, columns, columns_);
  cuda::RowFigures figures;
  figures.squared_norm = columns_.squared_norm.data();
  cuda::measure_rows(columns_.vectors.data(), columns.size(), centroids.cols,
                     cuda::kLargestColumnUnit, figures, stream_.handle());
  cuda::narrow(columns_.squared_norm.data(), nullptr, columns.size(), columns_.norm.data(),
               stream_.handle());
  cuda::exact_costs({q.num_rows, columns.size(), centroids.cols, {}}, x.x, x.squared_norm.data(),
                    columns_.vectors.data(), columns_.norm.data(),
                    cost_columns(columns, scale_log2, q), stream_.handle());
}

void CudaBackend::approximate_costs(const Points& points, RowSelection selection,
                                    MatrixView<const float> centroids, int scale_log2,
                                    const CostView& q) {
  enter();
  const cuda::CudaPoints& x = cuda::own(points);
  require(x.step.size() == x.rows.rows, "points were loaded without int8 rows");
  const std::vector<std::int32_t> which = all_columns(centroids.rows);
  upload_columns(centroids, which, columns_);
  cuda::RowFigures figures;
  figures.squared_norm = columns_.squared_norm.data();
  figures.step = columns_.step.data();
  figures.quantized = columns_.quantized.data();
  cuda::measure_rows(columns_.vectors.data(), which.size(), centroids.cols,
                     cuda::kLargestColumnUnit, figures, stream_.handle());
  cuda::narrow(columns_.squared_norm.data(), nullptr, which.size(), columns_.norm.data(),
               stream_.handle());
  cuda::approximate_costs(
      {q.num_rows, which.size(), centroids.cols, selection},
      {x.quantized.data(), x.step.data(), columns_.quantized.data(), columns_.step.data()},
      x.squared_norm.data(), columns_.norm.data(), cost_columns(which, scale_log2, q),
      stream_.handle());
}

void CudaBackend::changed_costs(const Points& points, MatrixView<const float> base_centroids,
                                MatrixView<const float> centroids, int scale_log2,
                                std::span<const std::int32_t> columns, bool copy_others,
                                const CostView& base, const CostView& q) {
  enter();
  const cuda::CudaPoints& x = cuda::own(points);
  const std::size_t count = columns.size();
  const std::size_t dim = centroids.cols;
  written(q);
  if (copy_others) stream_.copy_on_device(base.data, q.data, base.num_rows * base.stride);
  if (count == 0) return;

  upload_columns(base_centroids, columns, base_columns_);
  upload_columns(centroids, columns, columns_);
  const auto measure_norms = [&](Columns& which) {
    cuda::RowFigures norms;
    norms.squared_norm = which.squared_norm.data();
    cuda::measure_rows(which.vectors.data(), count, dim, cuda::kLargestColumnUnit, norms,
                       stream_.handle());
  };
  measure_norms(base_columns_);
  measure_norms(columns_);
  cuda::narrow(columns_.squared_norm.data(), base_columns_.squared_norm.data(), count,
               columns_.norm.data(), stream_.handle());
  cuda::subtract(columns_.vectors.data(), base_columns_.vectors.data(), count * dim,
                 shift_.resize(count * dim), stream_.handle());
  cuda::RowFigures figures;
  figures.step = columns_.step.data();
  figures.quantized = columns_.quantized.data();
  cuda::measure_rows(shift_.data(), count, dim, cuda::kLargestColumnUnit, figures,
                     stream_.handle());
  cuda::changed_costs(
      {q.num_rows, count, dim, {}},
      {x.quantized.data(), x.step.data(), columns_.quantized.data(), columns_.step.data()},
      columns_.norm.data(), base.data, cost_columns(columns, scale_log2, q), stream_.handle());
}

void CudaBackend::multiply_transposed(MatrixView<const float> a, MatrixView<const float> b,
                                      MatrixView<float> out) {
  enter();
  upload_columns(b, all_columns(b.rows), columns_);
  stream_.upload(std::span<const float>(a.values()), factor_.resize(a.size()));
  cuda::products({a.rows, b.rows, a.cols, {}}, factor_.data(), columns_.vectors.data(),
                 product_.resize(out.size()), stream_.handle());
  const auto products = stream_.download<float>(product_.data(), out.size());
  stream_.wait();
  std::ranges::copy(products, out.values().begin());
}

}  // namespace moefy
