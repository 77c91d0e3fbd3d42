#include "cuda/cuda_backend.hpp"

#include <algorithm>
#include <cmath>

#include "cuda/cuda_points.hpp"
#include "moefy/core/error.hpp"

namespace moefy {
namespace {

/// work(first, count) for [0, total) in blocks of `size`.
template <class Work>
void in_blocks(std::size_t total, std::size_t size, const Work& work) {
  for (std::size_t first = 0; first < total; first += size) {
    work(first, std::min(size, total - first));
  }
}

}  // namespace

void CudaBackend::Columns::resize(std::size_t count, std::size_t dim) {
  vectors.resize(cuda::round_up(count, cuda::kBlasColumns) * dim);
  norm.resize(count);
  step.resize(count);
  quantized.resize(cuda::round_up(count, cuda::kBlasInt8Columns) * cuda::padded_dim(dim));
}

void CudaBackend::take_columns(const RowsView& centroids, std::span<const std::int32_t> which,
                               Columns& columns) {
  const std::size_t dim = centroids.cols;
  columns.resize(which.size(), dim);
  const bool all = which.size() == centroids.rows;
  if (centroids.space == MemorySpace::device) {
    if (all) {
      stream_.copy_on_device(centroids.data, columns.vectors.data(), centroids.size());
      return;
    }
    stream_.upload(which, which_.resize(which.size()));
    cuda::gather_rows(reinterpret_cast<const std::uint32_t*>(centroids.data), which_.data(),
                      which.size(), dim, reinterpret_cast<std::uint32_t*>(columns.vectors.data()),
                      stream_.handle());
    return;
  }
  const MatrixView<const float> from = centroids.on_host();
  if (all) {
    stream_.upload(from.values(), columns.vectors.data());
    return;
  }
  columns.packed.clear();
  for (const std::int32_t j : which) {
    const auto vector = from.row(static_cast<std::size_t>(j));
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

Fp32Products CudaBackend::products_for(std::size_t num_sites) {
  enter();
  return num_sites > cuda::kMostOwnFp32Sites && blas_.is_there() ? Fp32Products::cublas
                                                                 : Fp32Products::own_kernels;
}

void CudaBackend::costs(const Points& points, const RowsView& centroids, int scale_log2,
                        std::span<const std::int32_t> columns, const CostView& q) {
  costs_by(products_for(q.num_sites), points, centroids, scale_log2, columns, q);
}

void CudaBackend::costs_by(Fp32Products products, const Points& points, const RowsView& centroids,
                           int scale_log2, std::span<const std::int32_t> columns,
                           const CostView& q) {
  enter();
  const cuda::CudaPoints& x = cuda::own(points);
  take_columns(centroids, columns, columns_);
  cuda::measure_columns(columns_.vectors.data(), nullptr, columns.size(), centroids.cols,
                        {columns_.norm.data()}, stream_.handle());
  const cuda::ProductShape shape{q.num_rows, columns.size(), centroids.cols, q.num_sites, {}};
  const cuda::CostColumns out = cost_columns(columns, scale_log2, q);
  if (products == Fp32Products::cublas) {
    require(blas_.is_there(), "cuBLAS is there for who asks for it");
    exact_costs_by_blas(x, shape, out);
  } else {
    cuda::exact_costs(shape, {x.x, columns_.vectors.data(), {}}, x.squared_norm.data(),
                      columns_.norm.data(), out, stream_.handle());
  }
}

void CudaBackend::exact_costs_by_blas(const cuda::CudaPoints& x, const cuda::ProductShape& shape,
                                      const cuda::CostColumns& out) {
  const std::size_t dim = shape.dim;
  const float* const columns = columns_.vectors.data();
  const std::size_t padded = cuda::round_up(shape.num_columns, cuda::kBlasColumns);
  stream_.fill(columns_.vectors.data() + shape.num_columns * dim, 0,
               (padded - shape.num_columns) * dim);
  in_blocks(shape.num_rows, cuda::kBlasRows, [&](std::size_t row, std::size_t num_rows) {
    const float* const block = blas_.block_of_rows(x.x + row * dim, num_rows, dim);
    in_blocks(shape.num_columns, cuda::kBlasColumns, [&](std::size_t column, std::size_t count) {
      const float* const products = blas_.products(block, columns + column * dim, dim);
      cuda::exact_costs({num_rows, count, dim, shape.num_sites, {}},
                        {nullptr, nullptr, {products, cuda::kBlasColumns}},
                        x.squared_norm.data() + row, columns_.norm.data() + column,
                        out.part(row, column), stream_.handle());
    });
  });
}

template <class Finish>
void CudaBackend::with_int8_products(const cuda::CudaPoints& x, const cuda::ProductShape& shape,
                                     const Finish& finish) {
  const std::size_t dim = cuda::padded_dim(shape.dim);
  const std::size_t padded = cuda::round_up(shape.num_columns, cuda::kBlasInt8Columns);
  const bool all_rows = shape.selection.step == 1 && shape.selection.first == 0;
  const bool by_blas =
      all_rows && shape.num_columns > cuda::kMostOwnInt8Columns && blas_.is_there();
  if (by_blas) {
    stream_.fill(columns_.quantized.data() + shape.num_columns * dim, 0,
                 (padded - shape.num_columns) * dim);
  }
  const std::size_t block =
      by_blas ? std::max<std::size_t>(cuda::kBlasInt8Products / padded, 1) : shape.num_rows;
  in_blocks(shape.num_rows, block, [&](std::size_t row, std::size_t num_rows) {
    cuda::QuantizedFactors factors{x.quantized.data() + row * dim,
                                   x.step.data() + row,
                                   columns_.quantized.data(),
                                   columns_.step.data(),
                                   {}};
    if (by_blas) {
      factors.products = {blas_.products(factors.rows, num_rows, factors.columns, padded, dim),
                          padded};
    }
    cuda::ProductShape part = shape;
    part.num_rows = num_rows;
    finish(part, factors, row);
  });
}

void CudaBackend::approximate_costs(const Points& points, RowSelection selection,
                                    const RowsView& centroids, int scale_log2, const CostView& q) {
  enter();
  const cuda::CudaPoints& x = cuda::own(points);
  require(x.step.size() == x.rows.rows, "points were loaded without int8 rows");
  const std::vector<std::int32_t> which = all_columns(centroids.rows);
  take_columns(centroids, which, columns_);
  cuda::measure_columns(columns_.vectors.data(), nullptr, which.size(), centroids.cols,
                        columns_.figures(), stream_.handle());
  const cuda::CostColumns out = cost_columns(which, scale_log2, q);
  with_int8_products(
      x, {q.num_rows, which.size(), centroids.cols, q.num_sites, selection},
      [&](const cuda::ProductShape& shape, const cuda::QuantizedFactors& factors, std::size_t row) {
        cuda::approximate_costs(shape, factors, x.squared_norm.data() + row, columns_.norm.data(),
                                out.part(row, 0), stream_.handle());
      });
}

void CudaBackend::changed_costs(const Points& points, const RowsView& base_centroids,
                                const RowsView& centroids, int scale_log2,
                                std::span<const std::int32_t> columns, bool copy_others,
                                const CostView& base, const CostView& q) {
  enter();
  const cuda::CudaPoints& x = cuda::own(points);
  const std::size_t count = columns.size();
  const std::size_t dim = centroids.cols;
  written(q);
  if (copy_others) stream_.copy_on_device(base.data, q.data, base.num_rows * base.stride);
  if (count == 0) return;

  take_columns(base_centroids, columns, base_columns_);
  take_columns(centroids, columns, columns_);
  cuda::measure_columns(columns_.vectors.data(), base_columns_.vectors.data(), count, dim,
                        columns_.figures(), stream_.handle());
  const cuda::CostColumns out = cost_columns(columns, scale_log2, q);
  with_int8_products(
      x, {q.num_rows, count, dim, q.num_sites, {}},
      [&](const cuda::ProductShape& shape, const cuda::QuantizedFactors& factors, std::size_t row) {
        cuda::changed_costs(shape, factors, columns_.norm.data(), base.data + row * base.stride,
                            out.part(row, 0), stream_.handle());
      });
}

void CudaBackend::multiply_transposed(MatrixView<const float> a, MatrixView<const float> b,
                                      MatrixView<float> out) {
  enter();
  take_columns(b, all_columns(b.rows), columns_);
  stream_.upload(std::span<const float>(a.values()), factor_.resize(a.size()));
  cuda::products({a.rows, b.rows, a.cols, b.rows, {}}, factor_.data(), columns_.vectors.data(),
                 product_.resize(out.size()), stream_.handle());
  const auto products = stream_.download<float>(product_.data(), out.size());
  stream_.wait();
  std::ranges::copy(products, out.values().begin());
}

}  // namespace moefy
