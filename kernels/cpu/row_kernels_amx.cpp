#if defined(__x86_64__)
#include "cpu/simd_avx512.hpp"

#include "cpu/row_kernels.inl"

namespace moefy::cpu {
namespace {

/// Tile products take signed bytes on both sides: columns need no offset.
struct Amx : Avx512 {
  static constexpr std::int32_t kOffset = 0;
};

/// int8 products of groups of rows by AMX tiles of 16 x 64 bytes. A group of rows is a right
/// operand as it lies in memory ([unit][row]), so a product is the transposed block of costs: 16
/// columns x 16 rows.
struct TileGroups {
  static constexpr std::size_t kGroups = 2;
  static constexpr std::size_t kUnits = 16;  // of a tile

  /// Tile registers are the thread's: configured for a call, given back after it.
  class Session {
   public:
    Session() {
      Configuration configuration;
      for (std::size_t tile = 0; tile < 8; ++tile) {
        configuration.bytes_per_row[tile] = 64;
        configuration.rows[tile] = 16;
      }
      _tile_loadconfig(&configuration);
    }
    ~Session() { _tile_release(); }
    Session(const Session&) = delete;
    Session& operator=(const Session&) = delete;

   private:
    struct alignas(64) Configuration {
      std::uint8_t palette = 1;
      std::uint8_t start_row = 0;
      std::uint8_t reserved[14] = {};
      std::uint16_t bytes_per_row[16] = {};
      std::uint8_t rows[16] = {};
    };
  };

  template <bool Change>
  MOEFY_INLINE void compute(const QuantizedRows& rows, std::size_t group, std::size_t count,
                            const Panels& panels, bool last, std::int32_t* out,
                            std::size_t stride) {
    const std::size_t ahead = last ? 0 : kGroups * kGroupRows * rows.units_per_row;
    for (std::size_t j = 0; j < panels.packed_columns; j += 32) {
      const bool wide = panels.packed_columns - j >= 32;
      if (count == 2) {
        wide ? block<2, 2, Change>(rows, group, panels, j, ahead, out, stride)
             : block<2, 1, Change>(rows, group, panels, j, ahead, out, stride);
      } else {
        wide ? block<1, 2, Change>(rows, group, panels, j, ahead, out, stride)
             : block<1, 1, Change>(rows, group, panels, j, ahead, out, stride);
      }
    }
  }

 private:
  /// G groups of rows and Z times 16 columns from `begin`. Columns are padded with zeros to whole
  /// tiles; what the last tile of a group reads behind it does not count.
  template <int G, int Z, bool Change>
  static void block(const QuantizedRows& rows, std::size_t group, const Panels& panels,
                    std::size_t begin, std::size_t ahead, std::int32_t* out, std::size_t stride) {
    const std::size_t group_units = kGroupRows * rows.units_per_row;
    const std::int32_t* row = rows.units + group * group_units;
    const std::int32_t* column = panels.units + begin * panels.units_per_column;
    const std::size_t column_bytes = panels.units_per_column * sizeof(std::int32_t);
    // Tile registers are named by constants: products 0 … 3 are 2 * group + column, operands 4 … 7.
    _tile_zero(0);
    if constexpr (Z == 2) _tile_zero(1);
    if constexpr (G == 2) _tile_zero(2);
    if constexpr (G == 2 && Z == 2) _tile_zero(3);
    for (std::size_t u = 0; u < panels.units_per_column; u += kUnits) {
      const std::int32_t* tile = row + u * kGroupRows;
      for (std::size_t line = 0; line < G * kUnits; ++line) {
        __builtin_prefetch(tile + line / kUnits * group_units + line % kUnits * kGroupRows + ahead);
      }
      _tile_loadd(4, tile, 64);
      _tile_loadd(6, column + u, column_bytes);
      _tile_dpbssd(0, 6, 4);
      if constexpr (Z == 2) {
        _tile_loadd(7, column + 16 * panels.units_per_column + u, column_bytes);
        _tile_dpbssd(1, 7, 4);
      }
      if constexpr (G == 2) {
        _tile_loadd(5, tile + group_units, 64);
        _tile_dpbssd(2, 6, 5);
        if constexpr (Z == 2) _tile_dpbssd(3, 7, 5);
      }
    }
    alignas(64) std::int32_t product[256];
    const auto finish = [&](std::size_t g, std::size_t z) {
      finish_tile<Change>(rows, (group + g) * kGroupRows, panels, begin + 16 * z, product,
                          out + g * kGroupRows * stride + begin + 16 * z, stride);
    };
    _tile_stored(0, product, 64);
    finish(0, 0);
    if constexpr (Z == 2) {
      _tile_stored(1, product, 64);
      finish(0, 1);
    }
    if constexpr (G == 2) {
      _tile_stored(2, product, 64);
      finish(1, 0);
    }
    if constexpr (G == 2 && Z == 2) {
      _tile_stored(3, product, 64);
      finish(1, 1);
    }
  }

  /// Costs of 16 rows from `first_row` in 16 columns from `begin`; product [column][row]. The same
  /// steps in the same order as int8_panel, a vector being 16 rows.
  template <bool Change>
  MOEFY_INLINE void finish_tile(const QuantizedRows& rows, std::size_t first_row,
                                const Panels& panels, std::size_t begin,
                                const std::int32_t* product, std::int32_t* out,
                                std::size_t stride) {
    using V = Amx;
    const auto scale = V::set(panels.scale);
    const auto limit = V::set(kCostLimit);
    const auto lowest = Change ? V::set(-kCostLimit) : V::zero();
    const auto factor = V::mul(V::set(-2.0F), V::load(rows.step + first_row));
    const auto norm = V::load(rows.squared_norm + first_row);
    V::Int costs[16];
    MOEFY_UNROLL for (std::size_t c = 0; c < 16; ++c) {
      auto cost = V::set(panels.norm[begin + c]);
      if constexpr (!Change) cost = V::add(norm, cost);
      const auto steps = V::mul(factor, V::set(panels.step[begin + c]));
      cost = V::add(cost, V::mul(steps, V::to_float(V::iload(product + 16 * c))));
      costs[c] = V::to_int(V::min(V::max(V::mul(cost, scale), lowest), limit));
    }
    V::transpose(costs);
    MOEFY_UNROLL for (std::size_t r = 0; r < 16; ++r) V::istore(out + r * stride, costs[r]);
  }
};

constexpr RowKernels kernels_with_tiles() {
  RowKernels kernels = row_kernels<Amx, TileGroups>();
  kernels.unit_panel_width = 1;
  kernels.unit_multiple = TileGroups::kUnits;
  return kernels;
}

}  // namespace

const RowKernels& amx_row_kernels() {
  static constexpr RowKernels kKernels = kernels_with_tiles();
  return kKernels;
}

}  // namespace moefy::cpu
#endif
