#pragma once

#include <cstddef>

namespace moefy::cuda {

/// A factor of a product in device memory: a row-major matrix with rows of `width` elements, of
/// which the first ones count. With `turned` its transpose is meant.
template <class T>
struct Operand {
  const T* data = nullptr;
  std::size_t width = 0;
  bool turned = false;
};

}  // namespace moefy::cuda
