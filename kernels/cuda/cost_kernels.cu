#include "cuda/cost_kernels.hpp"

#include "cuda/cost_epilogues.cuh"
#include "cuda/product_kernels.cuh"
#include "cuda/row_kernels.hpp"

namespace moefy::cuda {
namespace {

/// `finish` for every product of a matrix [num_rows, stride].
template <class Sum, class Finish>
__global__ void finish_kernel(const Sum* products, std::size_t num_rows, std::size_t num_columns,
                              std::size_t stride, Finish finish) {
  const std::size_t step = std::size_t{gridDim.x} * blockDim.x;
  const std::size_t count = num_rows * num_columns;
  for (std::size_t e = std::size_t{blockIdx.x} * blockDim.x + threadIdx.x; e < count; e += step) {
    const std::size_t i = e / num_columns;
    const std::size_t c = e % num_columns;
    finish(i, c, products[i * stride + c]);
  }
}

template <class Sum, class Finish>
void run_finish(const ProductMatrix<Sum>& products, const ProductShape& shape, Finish finish,
                cudaStream_t stream) {
  const std::size_t count = shape.num_rows * shape.num_columns;
  launch(finish_kernel<Sum, Finish>, strided_grid(count, kProductBlock, kProductBlock),
         kProductBlock, 0, stream, products.data, shape.num_rows, shape.num_columns,
         products.stride, finish);
}

template <class Finish>
void run_int8(const ProductShape& shape, const QuantizedFactors& factors, Finish finish,
              cudaStream_t stream) {
  if (factors.products.data != nullptr) {
    run_finish(factors.products, shape, finish, stream);
    return;
  }
  // int8 rows as words of four.
  run_products<Int8>(reinterpret_cast<const int*>(factors.rows),
                     reinterpret_cast<const int*>(factors.columns), shape,
                     padded_dim(shape.dim) / sizeof(int), finish, stream);
}

}  // namespace

void exact_costs(const ProductShape& shape, const FloatFactors& factors, const float* squared_norm,
                 const float* column_norm, const CostColumns& out, cudaStream_t stream) {
  const FinishExact finish{squared_norm, column_norm, shape.selection, out};
  if (factors.products.data != nullptr) {
    run_finish(factors.products, shape, finish, stream);
  } else {
    run_products<Fp32>(factors.rows, factors.columns, shape, shape.dim, finish, stream);
  }
}

void approximate_costs(const ProductShape& shape, const QuantizedFactors& factors,
                       const float* squared_norm, const float* column_norm, const CostColumns& out,
                       cudaStream_t stream) {
  run_int8(shape, factors,
           FinishApproximate{squared_norm, column_norm, factors.row_step, factors.column_step,
                             shape.selection, out},
           stream);
}

void changed_costs(const ProductShape& shape, const QuantizedFactors& factors,
                   const float* norm_change, const std::int32_t* base, const CostColumns& out,
                   cudaStream_t stream) {
  run_int8(shape, factors,
           FinishChange{norm_change, factors.row_step, factors.column_step, base, out}, stream);
}

void products(const ProductShape& shape, const float* x, const float* c, float* out,
              cudaStream_t stream) {
  run_products<Fp32>(x, c, shape, shape.dim, FinishProduct{out, shape.num_columns}, stream);
}

}  // namespace moefy::cuda
