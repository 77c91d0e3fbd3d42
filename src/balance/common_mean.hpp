#pragma once

#include <span>
#include <vector>

#include "moefy/backend/backend.hpp"

namespace moefy {

/// Loads the rows. If one common mean dominates them (‖mean‖² > 0.9 mean ‖x‖²), ‖x‖² + ‖c‖² - 2 x·c
/// loses digits: the mean row is then subtracted first. Returns the mean that was subtracted;
/// empty: none. `sums`: memory to work with.
std::vector<float> load_centered(Backend& backend, const RowsView& rows, bool quantize,
                                 SiteSums& sums, Points& points);

/// Adds `common_mean` (may be empty) to every row.
void add_to_rows(std::span<const float> common_mean, Matrix<float>& rows);

}  // namespace moefy
