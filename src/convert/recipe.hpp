#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <variant>
#include <vector>

#include "moefy/checkpoint/writer.hpp"
#include "moefy/model/architecture.hpp"

namespace moefy {

/// Number of the shared neurons' list, beside the routed experts 0, 1, …; where each shared expert
/// has tensors of its own, the next ones count down.
inline constexpr std::int64_t kSharedList = -1;
inline bool is_shared_list(std::int64_t list) { return list <= kSharedList; }

/// Whether multiplying by it only changes exponents: a power of two.
inline bool is_exact_factor(double factor) {
  int exponent = 0;
  return std::frexp(factor, &exponent) == 0.5;
}

/// Bytes of a source tensor as they are.
struct CopyPart {
  std::size_t source = 0;  ///< index into SourceModel::tensors
  std::uint64_t offset = 0;
  std::uint64_t num_bytes = 0;
};

/// value · multiply + add, element by element, rounded to the tensor's dtype.
struct ArithmeticPart {
  std::size_t source = 0;
  float multiply = 1;
  float add = 0;
};

/// One role of an FFN layer for a list of neurons: rows where the role is neuron-first, columns
/// elsewhere; padded with zeros to `width` neurons and multiplied by 2^scale_log2 · factor.
struct NeuronPart {
  std::size_t layer = 0;  ///< index into SourceModel::layers
  FfnRole role = FfnRole::up;
  std::int64_t list = 0;  ///< routed expert or kSharedList
  std::span<const std::int32_t> neurons;
  std::int64_t width = 0;
  std::int64_t begin = 0;   ///< element of the output tensor where the part begins
  std::int64_t stride = 0;  ///< neuron-second: elements between rows of the output tensor
  int scale_log2 = 0;
  double factor = 1;  ///< no power of two unless 1: products are rounded

  bool is_exact() const { return factor == 1; }
  double scale() const { return std::ldexp(factor, scale_log2); }
};

/// The map's router of a layer (of two layers the first), times its gate scale.
struct RouterPart {
  std::size_t layer = 0;
  /// A norm weight by whose length the rows are divided, index into SourceModel::tensors: for a
  /// router that divides its input by its length in a class that does not. Every input comes from
  /// that norm, so its length is near it.
  std::optional<std::size_t> divided_by_length_of;
};

/// The second layer of the map's router.
struct RouterOutputPart {
  std::size_t layer = 0;
};

/// The map's selection bias of a layer, times a quarter of its gate scale: the slope of the sigmoid
/// at 0 beside logits that carry the gate scale. F32.
struct SelectionBiasPart {
  std::size_t layer = 0;
};

struct FillPart {
  float value = 0;
};

/// Where the values of an output tensor come from. Neuron parts fill the tensor together.
using Recipe = std::variant<CopyPart, ArithmeticPart, RouterPart, RouterOutputPart,
                            SelectionBiasPart, FillPart, std::vector<NeuronPart>>;

struct OutputTensor {
  TensorSpec spec;
  Recipe recipe;
};

}  // namespace moefy
