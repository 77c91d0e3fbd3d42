#pragma once

#include <span>
#include <vector>

#include "cpu/row_kernels.hpp"
#include "moefy/core/matrix.hpp"

namespace moefy::cpu {

/// Packs columns for the row kernels; keeps its memory from call to call.
class PanelBuffers {
 public:
  /// fp32 values and squared norms of the centroids in `columns` (ascending).
  Panels pack_floats(const RowKernels& kernels, MatrixView<const float> centroids,
                     std::span<const std::int32_t> columns, float scale);
  /// int8 values of centroids - base_centroids (base may be empty) and norms or their change.
  Panels pack_units(const RowKernels& kernels, MatrixView<const float> centroids,
                    MatrixView<const float> base_centroids, std::span<const std::int32_t> columns,
                    float scale);

 private:
  Panels describe(MatrixView<const float> centroids, std::span<const std::int32_t> columns,
                  float scale);

  AlignedBuffer<float> values_;
  AlignedBuffer<std::int32_t> units_;
  AlignedBuffer<float> norm_;
  AlignedBuffer<float> step_;
  std::vector<std::uint16_t> mask_;
};

}  // namespace moefy::cpu
