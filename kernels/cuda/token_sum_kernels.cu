#include "cuda/token_sum_kernels.hpp"

#include "cuda/strided_products.cuh"

namespace moefy::cuda {
namespace {

constexpr unsigned kBlock = 128;

struct AddProduct {
  double* sum;
  std::size_t stride;
  __device__ void operator()(std::size_t i, std::size_t j, float value) const {
    sum[i * stride + j] += static_cast<double>(value);
  }
};

/// `change` for every element of a matrix [rows, cols].
template <class Change>
__global__ void elements_kernel(std::size_t rows, std::size_t cols, Change change) {
  const std::size_t step = std::size_t{gridDim.x} * blockDim.x;
  const std::size_t count = rows * cols;
  for (std::size_t e = std::size_t{blockIdx.x} * blockDim.x + threadIdx.x; e < count; e += step) {
    change(e / cols, e % cols);
  }
}

template <class Change>
void for_elements(std::size_t rows, std::size_t cols, Change change, cudaStream_t stream) {
  launch(elements_kernel<Change>, strided_grid(rows * cols, kBlock, kBlock), kBlock, 0, stream,
         rows, cols, change);
}

struct AddElement {
  const float* product;
  std::size_t cols;
  double* sum;
  std::size_t stride;
  __device__ void operator()(std::size_t i, std::size_t j) const {
    sum[i * stride + j] += static_cast<double>(product[i * cols + j]);
  }
};

struct SubtractOuter {
  double scale;
  const double* left;
  const double* right;
  double* sum;
  std::size_t n;
  __device__ void operator()(std::size_t i, std::size_t j) const {
    sum[i * n + j] -= scale * left[i] * right[j];
  }
};

struct AddClamped {
  double* open;
  double quanta;
  double* sum;
  std::size_t n;
  __device__ void operator()(std::size_t i, std::size_t j) const {
    const std::size_t e = i * n + j;
    if (j <= i) sum[e] += round((open[e] < 1.0 ? open[e] : 1.0) * quanta);
    open[e] = 0;
  }
};

struct ReadDiagonal {
  const double* matrix;
  std::size_t n;
  double* out;
  __device__ void operator()(std::size_t i, std::size_t /*j*/) const { out[i] = matrix[i * n + i]; }
};

struct AddToDiagonal {
  double* matrix;
  std::size_t n;
  double added;
  __device__ void operator()(std::size_t i, std::size_t /*j*/) const { matrix[i * n + i] += added; }
};

}  // namespace

void add_own_products(const Operand<float>& a, const Operand<float>& b, std::size_t m,
                      std::size_t n, std::size_t k, bool lower, double* sum, cudaStream_t stream) {
  run_strided(a, b, m, n, k, lower, AddProduct{sum, n}, stream);
}

void add_products(const float* product, std::size_t rows, std::size_t cols, double* sum,
                  std::size_t stride, cudaStream_t stream) {
  for_elements(rows, cols, AddElement{product, cols, sum, stride}, stream);
}

void subtract_outer(double scale, const double* left, const double* right, std::size_t m,
                    std::size_t n, double* sum, cudaStream_t stream) {
  for_elements(m, n, SubtractOuter{scale, left, right, sum, n}, stream);
}

void add_clamped(double* open, double quanta, std::size_t n, double* sum, cudaStream_t stream) {
  for_elements(n, n, AddClamped{open, quanta, sum, n}, stream);
}

void read_diagonal(const double* matrix, std::size_t n, double* out, cudaStream_t stream) {
  for_elements(n, 1, ReadDiagonal{matrix, n, out}, stream);
}

void add_to_diagonal(double* matrix, std::size_t n, double added, cudaStream_t stream) {
  for_elements(n, 1, AddToDiagonal{matrix, n, added}, stream);
}

}  // namespace moefy::cuda
