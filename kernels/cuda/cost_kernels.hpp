#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#include "moefy/backend/backend.hpp"

namespace moefy::cuda {

/// What the products below are made of (device memory).
struct ProductShape {
  std::size_t num_rows = 0;
  std::size_t num_columns = 0;
  std::size_t dim = 0;        ///< elements of a row
  std::size_t num_sites = 0;  ///< all columns that there could be: decides about the order of sums
  RowSelection selection;
};

/// Where the costs of the products go: column c of the product is site columns[c] of q.
struct CostColumns {
  const std::int32_t* columns = nullptr;  ///< [num_columns]
  std::int32_t* q = nullptr;              ///< [num_rows, stride]
  std::size_t stride = 0;
  float scale = 1;  ///< 2^s
  /// From this row and this column of the product on.
  CostColumns part(std::size_t row, std::size_t column) const {
    return {columns + column, q + row * stride, stride, scale};
  }
};

/// Products [num_rows, stride] that somebody else has computed (see Blas); null: nobody has, and a
/// tile of ours computes them on the way to the costs.
template <class Sum>
struct ProductMatrix {
  const Sum* data = nullptr;
  std::size_t stride = 0;
};

/// fp32 rows [*, dim] and columns [num_columns, dim].
struct FloatFactors {
  const float* rows = nullptr;
  const float* columns = nullptr;
  ProductMatrix<float> products;
};

/// q = fixed point of ‖x‖² + ‖c‖² - 2 x·c, from the squared norms of rows and columns; all device
/// memory, as everywhere here.
void exact_costs(const ProductShape& shape, const FloatFactors& factors, const float* squared_norm,
                 const float* column_norm, const CostColumns& out, cudaStream_t stream);

/// int8 rows and columns [*, padded_dim(dim)] with their steps.
struct QuantizedFactors {
  const std::int8_t* rows = nullptr;
  const float* row_step = nullptr;
  const std::int8_t* columns = nullptr;
  const float* column_step = nullptr;
  ProductMatrix<std::int32_t> products;
};

/// q = fixed point of ‖x‖² + ‖c‖² - 2 (int8 product).
void approximate_costs(const ProductShape& shape, const QuantizedFactors& factors,
                       const float* squared_norm, const float* column_norm, const CostColumns& out,
                       cudaStream_t stream);

/// q = clamp(base + fixed point of the change of ‖c‖² - 2 (int8 product with the shift)).
void changed_costs(const ProductShape& shape, const QuantizedFactors& factors,
                   const float* norm_change, const std::int32_t* base, const CostColumns& out,
                   cudaStream_t stream);

/// out [num_rows, num_columns] = x · cᵀ.
void products(const ProductShape& shape, const float* x, const float* c, float* out,
              cudaStream_t stream);

}  // namespace moefy::cuda
