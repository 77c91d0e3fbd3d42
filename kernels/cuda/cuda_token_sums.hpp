#pragma once

#include <memory>

#include "cuda/runtime.hpp"
#include "cuda/token_products.hpp"
#include "moefy/backend/token_sums.hpp"

namespace moefy::cuda {

/// Where sums are computed: a device, and the stream and products of its backend, which must
/// outlive them.
struct SumPlace {
  int device;
  Stream& stream;
  TokenProducts& products;
};

std::unique_ptr<ProductSum> make_product_sum(std::size_t n, std::size_t m, const SumPlace& place);
std::unique_ptr<GramSum> make_gram_sum(std::size_t n, const SumPlace& place);

}  // namespace moefy::cuda
