#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "moefy/backend/activation.hpp"
#include "moefy/backend/rows.hpp"
#include "moefy/checkpoint/checkpoint.hpp"
#include "moefy/core/hash.hpp"
#include "moefy/core/matrix.hpp"

namespace moefy {

/// The parts of a feed-forward layer. A neuron owns one row of gate and up, one column of the usual
/// down matrix, and one entry of the inner biases.
enum class FfnRole { gate, up, down, gate_bias, up_bias, down_bias };
std::string to_string(FfnRole role);

/// Where a role's values lie in the file.
struct FfnTensor {
  FfnRole role = FfnRole::up;
  std::string tensor;        ///< full name
  bool neuron_first = true;  ///< [n, d] (biases: [n]); false: [d, n]
  /// Fused tensors (Phi-3's gate_up_proj): the role is the slice `slice_begin` .. + num_neurons of
  /// the neuron dimension, which is slice_total long. Otherwise 0 and num_neurons.
  std::int64_t slice_begin = 0;
  std::int64_t slice_total = 0;
  DType dtype = DType::f32;
};

/// One FFN layer of a checkpoint: shapes and places, no values.
struct LayerInfo {
  std::int64_t index = 0;  ///< in the architecture's order (encoder, then decoder)
  std::string stack;       ///< "encoder", "decoder"
  std::int64_t index_in_stack = 0;
  std::string name;  ///< tensor prefix, "model.layers.7.mlp"
  std::int64_t num_neurons = 0;
  std::string num_neurons_key;  ///< where config.json says it: "/intermediate_size", a JSON pointer
  std::int64_t hidden_size = 0;
  std::string activation;  ///< as the config names it
  std::vector<FfnTensor> tensors;

  const FfnTensor* find(FfnRole role) const;
  bool gated() const { return find(FfnRole::gate) != nullptr; }
  /// Bytes of all its FFN tensors in file dtype.
  std::uint64_t file_bytes() const;
  /// The neurons [first, first + count) as a layer of their own, whose roles are slices of the same
  /// tensors. The output's bias belongs to no neuron and stays whole.
  LayerInfo part(std::int64_t first, std::int64_t count) const;
};

/// How a model family names and shapes its FFN tensors: one JSON file in configs/architectures.
class Architecture {
 public:
  /// Parses a family file. `source` names it in errors. InputError.
  static Architecture from_json(const std::string& text, const std::string& source);
  /// The families built in, by name.
  static std::vector<Architecture> built_in();
  /// The family of the checkpoint by model_type (extra files first). InputError naming near
  /// families and how to add one.
  static Architecture detect(const Checkpoint& checkpoint,
                             std::span<const Architecture> extra = {});

  const std::string& name() const;
  std::span<const std::string> model_types() const;

  /// All FFN layers, checked against the tensors: missing tensors, wrong rank, width or dtype, more
  /// layers in the file than in the config or fewer are InputErrors naming file, tensor, expected
  /// and found.
  std::vector<LayerInfo> layers(const Checkpoint& checkpoint) const;

  /// What a family file says; only src/model knows the fields.
  struct Description;

 private:
  std::shared_ptr<const Description> description_;
};

/// Layers as bytes, for ranks that cannot open the checkpoint.
std::vector<std::byte> serialize(std::span<const LayerInfo> layers);
/// The layers that `serialize` wrote; CommError if they cannot be read.
std::vector<LayerInfo> deserialize_layers(std::span<const std::byte> bytes);

/// The raw bytes of a role's slice as in the file, [n, d] or [d, n] in file dtype (fused tensors:
/// only the slice).
std::uint64_t role_bytes(const LayerInfo& layer, FfnRole role);
/// Fills `out`, role_bytes long. IoError, or InputError if the file has become shorter.
void read_role(const Checkpoint& checkpoint, const LayerInfo& layer, FfnRole role,
               std::span<std::byte> out);
/// The same bytes from `offset` on, as many as `out` holds.
void read_role_part(const Checkpoint& checkpoint, const LayerInfo& layer, FfnRole role,
                    std::uint64_t offset, std::span<std::byte> out);

/// Widens raw role bytes to fp32 with a neuron as a row [n, d] (transposed if need be); of a bias,
/// `out` is any shape with its number of values. Throws InputError naming layer, tensor, row and
/// column in the file of the first NaN or infinity.
void widen_role(const LayerInfo& layer, FfnRole role, std::span<const std::byte> raw,
                MatrixView<float> out);
/// How a matrix' raw bytes lie.
RawShape raw_shape(const LayerInfo& layer, FfnRole role);
/// The InputError of widen_role, for a value at element `index` of a role's raw bytes.
[[noreturn]] void throw_not_finite(const LayerInfo& layer, FfnRole role, std::size_t index,
                                   float value);
/// Fills `raw` with the next raw bytes of a role.
using RawSource = std::function<void(std::span<std::byte> raw)>;
/// widen_role of a matrix that passes through a small block of `scratch`, some rows of the file at
/// a time. Throws what `next` throws, too.
void widen_role_from(const LayerInfo& layer, FfnRole role, const RawSource& next,
                     AlignedBuffer<std::byte>& scratch, MatrixView<float> out);

/// Reads matrices of one layer from the files and makes the layer's fingerprint on the way, so that
/// bytes which are read anyway are not read again for it.
class LayerReader {
 public:
  /// Both must live as long as the reader.
  LayerReader(const Checkpoint& checkpoint, const LayerInfo& layer);

  /// Reads a role's raw bytes: `take` asks for all of them, part by part.
  void read_raw(FfnRole role, const std::function<void(const RawSource& next)>& take);
  /// read_role and widen_role_from in one: the matrix passes through a small block of `scratch`.
  /// Throws what both throw.
  void read_rows(FfnRole role, AlignedBuffer<std::byte>& scratch, MatrixView<float> out);

  /// XXH3-128 over name, dtype, shape and bytes of all FFN tensors of the layer. Reads what has not
  /// passed yet; to be called once, last.
  Digest fingerprint();

 private:
  void hash_description(const TensorInfo& tensor);
  bool is_next(const FfnTensor& slice) const;

  const Checkpoint& checkpoint_;
  const LayerInfo& layer_;
  std::vector<const TensorInfo*> tensors_;  ///< in the order of the fingerprint
  std::size_t next_ = 0;                    ///< in tensors_: the first that is not hashed yet
  Hasher hasher_;
};

/// The fingerprint alone.
Digest layer_fingerprint(const Checkpoint& checkpoint, const LayerInfo& layer);
/// XXH3-128 over config.json's bytes and the layer fingerprints in order.
Digest source_fingerprint(const Checkpoint& checkpoint, std::span<const Digest> layers);

/// Layers named by `0-3,7`, `encoder.0-5` (empty text: all), ascending. UsageError for bad syntax
/// or layers that do not exist.
std::vector<std::int64_t> select_layers(const std::string& text, std::span<const LayerInfo> layers);

/// An activation by its config name (silu, gelu, gelu_new, gelu_pytorch_tanh, relu, …). InputError
/// for others; `is_known_activation` tells beforehand.
Activation activation_named(const std::string& name);
bool is_known_activation(const std::string& name);

/// Elements of all tensors, for "parameters before and after".
std::uint64_t parameter_count(const Checkpoint& checkpoint);

}  // namespace moefy
