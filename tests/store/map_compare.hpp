#pragma once

#include <gtest/gtest.h>

#include "moefy/store/expert_map.hpp"

namespace moefy::test {

/// Expects everything that the file keeps of a layer (not seconds and rank) to be equal.
void expect_equal_layers(const LayerResult& a, const LayerResult& b);
void expect_equal_maps(const ExpertMap& a, const ExpertMap& b);

}  // namespace moefy::test
