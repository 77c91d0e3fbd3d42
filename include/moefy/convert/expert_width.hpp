#pragma once

#include "moefy/convert/convert.hpp"

namespace moefy {

/// UsageError naming the smallest --align that works if stock transformers cannot run the output:
/// its classes multiply all experts' matrices in one grouped product (torch's grouped_mm), for
/// which the rows of the down projections, as wide as an expert, must be a multiple of 16 bytes.
/// Outputs for the dense host and for classes that transformers does not have may have any width.
void require_runnable_width(const ConversionPlan& plan);

}  // namespace moefy
