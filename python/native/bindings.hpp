#pragma once

#include <nanobind/nanobind.h>

namespace moefy {

/// balanced_assign and balanced_kmeans on NumPy arrays; python/moefy/balance.py documents them.
void bind_balance(nanobind::module_& module);

}  // namespace moefy
