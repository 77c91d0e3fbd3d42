#pragma once

#include <memory>

#include "moefy/backend/token_sums.hpp"
#include "moefy/core/thread_pool.hpp"

namespace moefy::cpu {

/// Sums in host memory, multiplied by OpenBLAS. `threads` must outlive them.
std::unique_ptr<ProductSum> make_product_sum(std::size_t n, std::size_t m, ThreadPool& threads);
std::unique_ptr<GramSum> make_gram_sum(std::size_t n, ThreadPool& threads);

}  // namespace moefy::cpu
