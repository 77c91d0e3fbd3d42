// The loops of row_kernels.hpp over the vector type V (simd_*.hpp). Included by exactly one source
// file an instruction set, after V's header; everything here has internal linkage.

#include "cpu/row_kernels.hpp"

namespace moefy::cpu {
namespace {

#define MOEFY_UNROLL _Pragma("GCC unroll 16")

// Rows come from far away, and a single stream of them does not keep the memory busy.
constexpr std::size_t kPrefetchRows = 4;
constexpr float kCostLimit = 268435456.0F;  // kMaxCost

template <class T>
MOEFY_INLINE T smaller(T a, T b) {
  return b < a ? b : a;
}

/// Folds sixteen partial sums in halves: the order the reference defines.
template <class V>
double reduce(typename V::Double sum) {
  double part[16];
  V::dstore(part, sum);
  for (int half = 8; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) part[i] += part[i + half];
  }
  return part[0];
}

template <class V>
double squared_norm(const float* row, std::size_t dim) {
  typename V::Double sum = V::dzero();
  std::size_t l = 0;
  for (; l + 16 <= dim; l += 16) sum = V::add_square(sum, V::widen(V::load(row + l)));
  if (l < dim) sum = V::add_square(sum, V::widen(V::load_part(row + l, dim - l)));
  return reduce<V>(sum);
}

template <class V>
double squared_distance(const float* row, const float* centroid, std::size_t dim) {
  typename V::Double sum = V::dzero();
  std::size_t l = 0;
  for (; l + 16 <= dim; l += 16) {
    sum = V::add_square(sum, V::dsub(V::widen(V::load(row + l)), V::widen(V::load(centroid + l))));
  }
  if (l < dim) {
    sum = V::add_square(sum, V::dsub(V::widen(V::load_part(row + l, dim - l)),
                                     V::widen(V::load_part(centroid + l, dim - l))));
  }
  return reduce<V>(sum);
}

/// int8 values of sixteen floats, as units `distance` apart; returns the values (without offset).
template <class V>
MOEFY_INLINE typename V::Int store_units(typename V::Float x, float inverse, std::int32_t offset,
                                         std::size_t units, std::size_t distance,
                                         std::int32_t* out) {
  constexpr std::size_t kUnits = 16 / V::kValuesPerUnit;
  const typename V::Int value = V::to_int(V::mul(x, V::set(inverse)));
  std::int32_t unit[kUnits];
  V::to_units(V::iadd(value, V::iset(offset)), unit);
  for (std::size_t u = 0; u < smaller(kUnits, units); ++u) out[u * distance] = unit[u];
  return value;
}

template <class V>
void load_row(const float* row, std::size_t dim, std::size_t i, std::size_t ahead,
              const QuantizedRows& out, LoadStatistics& statistics) {
  typename V::Float largest = V::zero();
  typename V::Double sum = V::dzero();
  std::size_t l = 0;
  for (; l + 16 <= dim; l += 16) {
    __builtin_prefetch(row + l + ahead);
    const typename V::Float x = V::load(row + l);
    largest = V::max(V::abs(x), largest);
    sum = V::add_square(sum, V::widen(x));
  }
  if (l < dim) {
    const typename V::Float x = V::load_part(row + l, dim - l);
    largest = V::max(V::abs(x), largest);
    sum = V::add_square(sum, V::widen(x));
  }
  const double norm = reduce<V>(sum);
  // A sum of squares of floats cannot overflow in double: not finite means a bad element.
  if (!(norm < 1e300)) {
    if (statistics.bad_row < 0) statistics.bad_row = static_cast<std::int64_t>(i);
    return;
  }
  const float row_max = V::reduce_max(largest);
  if (norm > statistics.max_squared_norm) statistics.max_squared_norm = norm;
  statistics.sum_squared_norm += norm;
  if (row_max > statistics.max_abs) statistics.max_abs = row_max;
  if (norm == 0) ++statistics.zero_rows;
  out.squared_norm[i] = static_cast<float>(norm);
  if (out.units == nullptr) return;

  const float step = row_max > 0 ? row_max / kLargestRowUnit : 1.0F;
  const float inverse = 1.0F / step;
  std::int32_t* units =
      out.units + i / kGroupRows * kGroupRows * out.units_per_row + i % kGroupRows;
  typename V::Int total = V::izero();
  for (l = 0; l < dim; l += 16) {
    const std::size_t first_unit = l / V::kValuesPerUnit;
    const typename V::Float x = V::load_part(row + l, dim - l);
    total = V::iadd(total, store_units<V>(x, inverse, 0, out.units_per_row - first_unit, kGroupRows,
                                          units + first_unit * kGroupRows));
  }
  out.step[i] = step;
  out.sum[i] = V::ireduce_add(total);
}

template <class V>
void load(const float* rows, std::size_t num_rows, std::size_t dim, std::size_t first,
          std::size_t last, const QuantizedRows& out, LoadStatistics& statistics) {
  for (std::size_t i = first; i < last; ++i) {
    const std::size_t ahead = smaller(kPrefetchRows, num_rows - 1 - i) * dim;
    load_row<V>(rows + i * dim, dim, i, ahead, out, statistics);
  }
  if (last != num_rows || last % kGroupRows == 0) return;
  const std::size_t group = last / kGroupRows;
  for (std::size_t r = last % kGroupRows; r < kGroupRows; ++r) {
    const std::size_t i = group * kGroupRows + r;
    out.squared_norm[i] = 0;
    if (out.units == nullptr) continue;
    out.step[i] = 0;
    out.sum[i] = 0;
    for (std::size_t u = 0; u < out.units_per_row; ++u) {
      out.units[(group * out.units_per_row + u) * kGroupRows + r] = 0;
    }
  }
}

template <class V>
float pack_units(const float* values, const float* base, std::size_t dim, std::size_t width,
                 std::int32_t* out) {
  const auto value = [&](std::size_t l) {
    const typename V::Float x = V::load_part(values + l, dim - l);
    return base == nullptr ? x : V::sub(x, V::load_part(base + l, dim - l));
  };
  typename V::Float largest = V::zero();
  for (std::size_t l = 0; l < dim; l += 16) largest = V::max(largest, V::abs(value(l)));
  const float max = V::reduce_max(largest);
  const float step = max > 0 ? max / kLargestColumnUnit : 1.0F;
  const float inverse = 1.0F / step;
  const std::size_t units = (dim + V::kValuesPerUnit - 1) / V::kValuesPerUnit;
  for (std::size_t l = 0; l < dim; l += 16) {
    const std::size_t first_unit = l / V::kValuesPerUnit;
    store_units<V>(value(l), inverse, V::kOffset, units - first_unit, width,
                   out + first_unit * width);
  }
  return step;
}

/// Products of R rows with a panel of 16 Z columns; acc [R][16 Z]. Fetches what lies `ahead`
/// elements behind the rows for the next tile.
template <class V, int R, int Z>
MOEFY_INLINE void float_tile(const float* const* rows, const float* panel, std::size_t dim,
                             std::size_t ahead, float* acc) {
  typename V::Float sum[R][Z];
  const float* row[R];
  MOEFY_UNROLL for (int i = 0; i < R; ++i) {
    row[i] = rows[i];
    MOEFY_UNROLL for (int z = 0; z < Z; ++z) sum[i][z] = V::zero();
  }
  for (std::size_t l = 0; l < dim; ++l) {
    if (l % 16 < static_cast<std::size_t>(R)) __builtin_prefetch(rows[l % 16] + l + ahead);
    typename V::Float column[Z];
    MOEFY_UNROLL for (int z = 0; z < Z; ++z) column[z] = V::load(panel + (l * Z + z) * 16);
    MOEFY_UNROLL for (int i = 0; i < R; ++i) {
      const typename V::Float x = V::set(row[i][l]);
      MOEFY_UNROLL for (int z = 0; z < Z; ++z) sum[i][z] = V::fma(x, column[z], sum[i][z]);
    }
  }
  MOEFY_UNROLL for (int i = 0; i < R; ++i) {
    MOEFY_UNROLL for (int z = 0; z < Z; ++z) V::store(acc + (i * Z + z) * 16, sum[i][z]);
  }
}

/// int8 products of R interleaved rows with a panel of 16 Z columns; acc [R][16 Z].
template <class V, int R, int Z>
MOEFY_INLINE void int8_tile(const std::int32_t* rows, const std::int32_t* panel, std::size_t units,
                            std::size_t ahead, std::int32_t* acc) {
  typename V::Int sum[R][Z];
  MOEFY_UNROLL for (int i = 0; i < R; ++i) {
    MOEFY_UNROLL for (int z = 0; z < Z; ++z) sum[i][z] = V::izero();
  }
  for (std::size_t u = 0; u < units; ++u) {
    __builtin_prefetch(rows + (u + ahead) * kGroupRows);
    typename V::Int column[Z];
    MOEFY_UNROLL for (int z = 0; z < Z; ++z) column[z] = V::iload(panel + (u * Z + z) * 16);
    MOEFY_UNROLL for (int i = 0; i < R; ++i) {
      const typename V::Int x = V::iset(rows[u * kGroupRows + static_cast<std::size_t>(i)]);
      MOEFY_UNROLL for (int z = 0; z < Z; ++z) sum[i][z] = V::dot(sum[i][z], column[z], x);
    }
  }
  MOEFY_UNROLL for (int i = 0; i < R; ++i) {
    MOEFY_UNROLL for (int z = 0; z < Z; ++z) V::istore(acc + (i * Z + z) * 16, sum[i][z]);
  }
}

/// Packed results of one row to its destination columns.
template <class V>
MOEFY_INLINE void scatter(const Panels& panels, const std::int32_t* packed, std::int32_t* out) {
  for (std::size_t g = 0; g < panels.num_groups; ++g) {
    const std::uint16_t mask = panels.mask[g];
    if (mask == 0) continue;
    V::istore_masked(out + g * 16, mask, V::expand(mask, packed));
    packed += __builtin_popcount(mask);
  }
}

/// Pointers to R rows from `first`; past the end the last one again.
template <int R>
MOEFY_INLINE void row_pointers(const float* rows, std::size_t dim, std::size_t first,
                               std::size_t last, const float** out) {
  for (std::size_t i = 0; i < R; ++i) out[i] = rows + smaller(first + i, last - 1) * dim;
}

template <class V, int Z>
MOEFY_INLINE void float_panel(const float* const* rows, const float* squared_norm,
                              const Panels& panels, std::size_t begin, std::size_t ahead,
                              std::int32_t* out, std::size_t stride) {
  constexpr int R = V::kFloatRows;
  alignas(64) float acc[R * Z * 16];
  float_tile<V, R, Z>(rows, panels.values + begin * panels.dim, panels.dim, ahead, acc);
  const auto scale = V::set(panels.scale);
  const auto limit = V::set(kCostLimit);
  for (std::size_t i = 0; i < R; ++i) {
    for (std::size_t z = 0; z < Z; ++z) {
      const auto norms = V::add(V::set(squared_norm[i]), V::load(panels.norm + begin + 16 * z));
      auto cost = V::fma(V::set(-2.0F), V::load(acc + (i * Z + z) * 16), norms);
      cost = V::min(V::mul(V::max(cost, V::zero()), scale), limit);
      V::istore(out + i * stride + begin + 16 * z, V::to_int(cost));
    }
  }
}

template <class V>
void costs(const float* rows, const float* squared_norm, const Panels& panels, std::size_t first,
           std::size_t last, std::int32_t* q, std::size_t stride, std::int32_t* scratch) {
  constexpr std::size_t R = V::kFloatRows;
  constexpr std::size_t kWidth = 16 * V::kPanelVectors;
  for (std::size_t i0 = first; i0 < last; i0 += R) {
    const float* row[R];
    row_pointers<R>(rows, panels.dim, i0, last, row);
    const std::size_t ahead = i0 + 2 * R <= last ? R * panels.dim : 0;
    float norm[R];
    for (std::size_t i = 0; i < R; ++i) norm[i] = squared_norm[smaller(i0 + i, last - 1)];
    const bool direct = panels.all && i0 + R <= last;
    std::int32_t* out = direct ? q + i0 * stride : scratch;
    const std::size_t out_stride = direct ? stride : panels.packed_columns;
    for (std::size_t j = 0; j < panels.packed_columns; j += kWidth) {
      if (panels.packed_columns - j >= kWidth) {
        float_panel<V, V::kPanelVectors>(row, norm, panels, j, ahead, out, out_stride);
      } else {
        float_panel<V, 1>(row, norm, panels, j, ahead, out, out_stride);
      }
    }
    if (direct) continue;
    for (std::size_t i = 0; i < R && i0 + i < last; ++i) {
      scatter<V>(panels, scratch + i * panels.packed_columns, q + (i0 + i) * stride);
    }
  }
}

/// Costs (or, with Change, changes of cost) of one group of rows in one panel.
template <class V, int R, int Z, bool Change>
MOEFY_INLINE void int8_panel(const QuantizedRows& rows, std::size_t group, const Panels& panels,
                             std::size_t begin, std::size_t ahead, std::int32_t* out,
                             std::size_t stride) {
  const auto scale = V::set(panels.scale);
  const auto limit = V::set(kCostLimit);
  const auto lowest = Change ? V::set(-kCostLimit) : V::zero();
  for (std::size_t r = 0; r < kGroupRows; r += R) {
    alignas(64) std::int32_t acc[R * Z * 16];
    int8_tile<V, R, Z>(rows.units + group * kGroupRows * rows.units_per_row + r,
                       panels.units + begin * rows.units_per_row, rows.units_per_row, ahead, acc);
    for (std::size_t i = 0; i < R; ++i) {
      const std::size_t row = group * kGroupRows + r + i;
      const auto offset = V::iset(V::kOffset * rows.sum[row]);
      const auto factor = V::set(-2.0F * rows.step[row]);
      const auto norm = V::set(rows.squared_norm[row]);
      for (std::size_t z = 0; z < Z; ++z) {
        const auto product = V::to_float(V::isub(V::iload(acc + (i * Z + z) * 16), offset));
        auto cost = V::load(panels.norm + begin + 16 * z);
        if constexpr (!Change) cost = V::add(norm, cost);
        const auto steps = V::mul(factor, V::load(panels.step + begin + 16 * z));
        cost = V::add(cost, V::mul(steps, product));
        cost = V::min(V::max(V::mul(cost, scale), lowest), limit);
        V::istore(out + (r + i) * stride + begin + 16 * z, V::to_int(cost));
      }
    }
  }
}

/// Costs (or, with Change, changes of cost) of groups of rows by the vector instructions of V.
template <class V>
struct VectorGroups {
  static constexpr std::size_t kGroups = 1;  ///< computed together
  struct Session {};                         ///< lives while groups are computed

  /// Packed results of the rows of `count` groups from `group`; `last`: none behind them is next.
  template <bool Change>
  MOEFY_INLINE void compute(const QuantizedRows& rows, std::size_t group, std::size_t /*count*/,
                            const Panels& panels, bool last, std::int32_t* out,
                            std::size_t stride) {
    constexpr std::size_t kWidth = 16 * V::kPanelVectors;
    const std::size_t ahead = last ? 0 : rows.units_per_row;
    for (std::size_t j = 0; j < panels.packed_columns; j += kWidth) {
      if (panels.packed_columns - j >= kWidth) {
        int8_panel<V, V::kWideDotRows, V::kPanelVectors, Change>(rows, group, panels, j, ahead, out,
                                                                 stride);
      } else {
        int8_panel<V, V::kNarrowDotRows, 1, Change>(rows, group, panels, j, ahead, out, stride);
      }
    }
  }
};

/// Groups that hold the rows [first, last), at most `most` of them.
MOEFY_INLINE std::size_t group_count(std::size_t first, std::size_t last, std::size_t most) {
  return smaller((last - first + kGroupRows - 1) / kGroupRows, most);
}

template <class V, class Groups>
void approximate_costs(const QuantizedRows& rows, const Panels& panels, std::size_t block_step,
                       std::size_t first, std::size_t last, std::int32_t* q, std::size_t stride,
                       std::int32_t* scratch) {
  constexpr std::size_t kGroupsPerBlock = 64 / kGroupRows;
  constexpr std::size_t kRows = Groups::kGroups * kGroupRows;
  [[maybe_unused]] const typename Groups::Session session;
  for (std::size_t i0 = first; i0 < last; i0 += kRows) {
    const std::size_t selected = i0 / kGroupRows;
    const std::size_t group =
        selected / kGroupsPerBlock * block_step * kGroupsPerBlock + selected % kGroupsPerBlock;
    const std::size_t count = group_count(i0, last, Groups::kGroups);
    const bool at_end = i0 + 2 * kRows > last;
    if (panels.all && i0 + kRows <= last) {
      Groups::template compute<false>(rows, group, count, panels, at_end, q + i0 * stride, stride);
      continue;
    }
    Groups::template compute<false>(rows, group, count, panels, at_end, scratch,
                                    panels.packed_columns);
    for (std::size_t i = 0; i < kRows && i0 + i < last; ++i) {
      scatter<V>(panels, scratch + i * panels.packed_columns, q + (i0 + i) * stride);
    }
  }
}

template <class V, class Groups>
void changed_costs(const QuantizedRows& rows, const Panels& panels, bool copy_others,
                   std::size_t first, std::size_t last, const std::int32_t* base, std::int32_t* q,
                   std::size_t stride, std::int32_t* scratch) {
  constexpr std::size_t kRows = Groups::kGroups * kGroupRows;
  [[maybe_unused]] const typename Groups::Session session;
  const auto limit = V::iset(1 << 28);
  for (std::size_t i0 = first; i0 < last; i0 += kRows) {
    const std::size_t count = group_count(i0, last, Groups::kGroups);
    const bool at_end = i0 + 2 * kRows > last;
    Groups::template compute<true>(rows, i0 / kGroupRows, count, panels, at_end, scratch,
                                   panels.packed_columns);
    for (std::size_t i = 0; i < kRows && i0 + i < last; ++i) {
      const std::int32_t* packed = scratch + i * panels.packed_columns;
      const std::int32_t* from = base + (i0 + i) * stride;
      std::int32_t* to = q + (i0 + i) * stride;
      for (std::size_t g = 0; g < panels.num_groups; ++g) {
        const std::uint16_t mask = panels.mask[g];
        if (mask == 0 && !copy_others) continue;
        const auto before = V::iload(from + g * 16);
        const auto change = V::expand(mask, packed);
        packed += __builtin_popcount(mask);
        const auto now = V::imin(V::imax(V::iadd(before, change), V::izero()), limit);
        V::istore_masked(to + g * 16, copy_others ? std::uint16_t{0xffff} : mask, now);
      }
    }
  }
}

template <class V, int R>
MOEFY_INLINE void add_row_tile(const float* const* rows, std::size_t count, double scale,
                               bool subtract, std::int64_t* sum) {
  std::size_t l = 0;
  for (; l + 8 <= count; l += 8) {
    typename V::Long total = V::fixed_point(rows[0] + l, scale);
    MOEFY_UNROLL for (int i = 1; i < R; ++i) {
      total = V::ladd(total, V::fixed_point(rows[i] + l, scale));
    }
    const typename V::Long before = V::lload(sum + l);
    V::lstore(sum + l, subtract ? V::lsub(before, total) : V::ladd(before, total));
  }
  for (; l < count; ++l) {
    std::int64_t total = 0;
    for (int i = 0; i < R; ++i) {
      total += __builtin_llrint(static_cast<double>(rows[i][l]) * scale);
    }
    sum[l] += subtract ? -total : total;
  }
}

template <class V>
void add_rows(const float* const* rows, std::size_t num_rows, std::size_t count, double scale,
              bool subtract, std::int64_t* sum) {
  // The sums are the larger part of the traffic: they are read and written once for four rows.
  std::size_t i = 0;
  for (; i + 4 <= num_rows; i += 4) add_row_tile<V, 4>(rows + i, count, scale, subtract, sum);
  for (; i < num_rows; ++i) add_row_tile<V, 1>(rows + i, count, scale, subtract, sum);
}

template <class V, int Z>
MOEFY_INLINE void product_panel(const float* const* rows, const Panels& panels, std::size_t begin,
                                std::size_t ahead, std::size_t num_rows, std::size_t num_columns,
                                float* out) {
  constexpr int R = V::kFloatRows;
  alignas(64) float acc[R * Z * 16];
  float_tile<V, R, Z>(rows, panels.values + begin * panels.dim, panels.dim, ahead, acc);
  for (std::size_t i = 0; i < num_rows; ++i) {
    for (std::size_t z = 0; z < Z && begin + 16 * z < num_columns; ++z) {
      V::store_part(out + i * num_columns + begin + 16 * z, num_columns - begin - 16 * z,
                    V::load(acc + (i * Z + z) * 16));
    }
  }
}

template <class V>
void multiply(const float* rows, const Panels& panels, std::size_t first, std::size_t last,
              std::size_t num_columns, float* out) {
  constexpr std::size_t R = V::kFloatRows;
  constexpr std::size_t kWidth = 16 * V::kPanelVectors;
  for (std::size_t i0 = first; i0 < last; i0 += R) {
    const float* row[R];
    row_pointers<R>(rows, panels.dim, i0, last, row);
    const std::size_t ahead = i0 + 2 * R <= last ? R * panels.dim : 0;
    const std::size_t num_rows = smaller(R, last - i0);
    for (std::size_t j = 0; j < panels.packed_columns; j += kWidth) {
      float* target = out + i0 * num_columns;
      if (panels.packed_columns - j >= kWidth) {
        product_panel<V, V::kPanelVectors>(row, panels, j, ahead, num_rows, num_columns, target);
      } else {
        product_panel<V, 1>(row, panels, j, ahead, num_rows, num_columns, target);
      }
    }
  }
}

template <class V, class Groups = VectorGroups<V>>
constexpr RowKernels row_kernels() {
  constexpr std::size_t kWidth = 16 * V::kPanelVectors;
  return {V::kValuesPerUnit,
          kWidth,
          kWidth,
          1,
          squared_norm<V>,
          load<V>,
          pack_units<V>,
          costs<V>,
          approximate_costs<V, Groups>,
          changed_costs<V, Groups>,
          add_rows<V>,
          squared_distance<V>,
          multiply<V>};
}

}  // namespace
}  // namespace moefy::cpu
