#include "cpu/panel_buffers.hpp"

#include <algorithm>

namespace moefy::cpu {
namespace {

struct Slot {
  std::size_t panel_begin;  // first packed column of the panel
  std::size_t width;        // of the panel
  std::size_t lane;         // inside it
};

Slot slot_of(const Panels& panels, std::size_t panel_width, std::size_t packed) {
  const std::size_t begin = packed / panel_width * panel_width;
  return {begin, std::min(panel_width, panels.packed_columns - begin), packed - begin};
}

}  // namespace

Panels PanelBuffers::describe(MatrixView<const float> centroids,
                              std::span<const std::int32_t> columns, float scale) {
  Panels panels;
  panels.dim = centroids.cols;
  panels.packed_columns = (columns.size() + 15) / 16 * 16;
  panels.num_groups = (centroids.rows + 15) / 16;
  panels.all = columns.size() == panels.num_groups * 16;
  panels.scale = scale;
  norm_.resize(panels.packed_columns);
  step_.resize(panels.packed_columns);
  std::fill_n(norm_.data(), panels.packed_columns, 0.0F);
  std::fill_n(step_.data(), panels.packed_columns, 0.0F);
  mask_.assign(panels.num_groups, 0);
  for (std::int32_t column : columns) {
    const auto j = static_cast<std::size_t>(column);
    mask_[j / 16] = static_cast<std::uint16_t>(mask_[j / 16] | (1U << (j % 16)));
  }
  panels.norm = norm_.data();
  panels.step = step_.data();
  panels.mask = mask_.data();
  return panels;
}

Panels PanelBuffers::pack_floats(const RowKernels& kernels, MatrixView<const float> centroids,
                                 std::span<const std::int32_t> columns, float scale) {
  Panels panels = describe(centroids, columns, scale);
  values_.resize(panels.packed_columns * panels.dim);
  for (std::size_t c = 0; c < panels.packed_columns; ++c) {
    const Slot slot = slot_of(panels, kernels.panel_width, c);
    float* out = values_.data() + slot.panel_begin * panels.dim + slot.lane;
    if (c >= columns.size()) {
      for (std::size_t l = 0; l < panels.dim; ++l) out[l * slot.width] = 0;
      continue;
    }
    const float* centroid = centroids.row(static_cast<std::size_t>(columns[c])).data();
    for (std::size_t l = 0; l < panels.dim; ++l) out[l * slot.width] = centroid[l];
    norm_[c] = static_cast<float>(kernels.squared_norm(centroid, panels.dim));
  }
  panels.values = values_.data();
  return panels;
}

Panels PanelBuffers::pack_units(const RowKernels& kernels, MatrixView<const float> centroids,
                                MatrixView<const float> base_centroids,
                                std::span<const std::int32_t> columns, float scale) {
  Panels panels = describe(centroids, columns, scale);
  const std::size_t used = (panels.dim + kernels.values_per_unit - 1) / kernels.values_per_unit;
  const std::size_t units =
      (used + kernels.unit_multiple - 1) / kernels.unit_multiple * kernels.unit_multiple;
  panels.units_per_column = units;
  units_.resize(panels.packed_columns * units);
  for (std::size_t c = 0; c < panels.packed_columns; ++c) {
    const Slot slot = slot_of(panels, kernels.unit_panel_width, c);
    std::int32_t* out = units_.data() + slot.panel_begin * units + slot.lane;
    for (std::size_t u = c < columns.size() ? used : 0; u < units; ++u) out[u * slot.width] = 0;
    if (c >= columns.size()) continue;
    const auto j = static_cast<std::size_t>(columns[c]);
    const float* centroid = centroids.row(j).data();
    const float* base = base_centroids.data == nullptr ? nullptr : base_centroids.row(j).data();
    step_[c] = kernels.pack_units(centroid, base, panels.dim, slot.width, out);
    double norm = kernels.squared_norm(centroid, panels.dim);
    if (base != nullptr) norm -= kernels.squared_norm(base, panels.dim);
    norm_[c] = static_cast<float>(norm);
  }
  panels.units = units_.data();
  return panels;
}

}  // namespace moefy::cpu
