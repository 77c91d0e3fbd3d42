#pragma once

#include <memory>

#include "moefy/backend/token_sums.hpp"

namespace moefy::reference {

std::unique_ptr<ProductSum> make_product_sum(std::size_t n, std::size_t m);
std::unique_ptr<GramSum> make_gram_sum(std::size_t n);

}  // namespace moefy::reference
