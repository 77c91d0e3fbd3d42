#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "moefy/core/dtype.hpp"
#include "moefy/core/hash.hpp"
#include "moefy/core/matrix.hpp"

namespace moefy {

/// What a recordings file holds of one FFN layer.
struct RecordedLayer {
  std::int64_t layer_index = 0;
  std::string name;
  std::int64_t num_neurons = 0;
  std::int64_t hidden_size = 0;
  Digest fingerprint;           ///< of the layer's FFN tensors when it was recorded
  DType dtype = DType::f16;     ///< of the inputs as they lie in the file
  bool has_importance = false;  ///< importance vectors of its neurons are there
};

/// The inputs of a model's FFN layers on text and what was derived from it (docs/file-formats.md,
/// "Recordings"), read block by block: memory does not depend on the number of tokens. Not to be
/// used from several threads at once (HDF5 keeps global state).
class Recordings {
 public:
  /// Opens the file and checks shapes and types of everything in it. InputError naming file, layer
  /// and what is wrong (no recordings, cut, no tokens, newer schema); IoError.
  explicit Recordings(const std::filesystem::path& path);
  ~Recordings();
  Recordings(Recordings&&) noexcept;
  Recordings& operator=(Recordings&&) noexcept;

  const std::string& file() const;
  std::size_t num_tokens() const;
  /// Ascending by layer_index.
  const std::vector<RecordedLayer>& layers() const;
  /// The layer with that index, or nullptr.
  const RecordedLayer* find(std::int64_t layer_index) const;

  /// Fills rows [count, hidden_size] with the inputs of tokens `first` .. first + count in fp32.
  /// InputError naming layer, token and column of a NaN or infinity, or if the file is damaged.
  void read_inputs(const RecordedLayer& layer, std::size_t first, MatrixView<float> rows) const;

  /// Importance of each neuron for each text cluster [clusters, num_neurons]. InputError if there
  /// is none, or a value is not finite.
  Matrix<double> read_importance(const RecordedLayer& layer) const;

  /// XXH3-128 over everything but the inputs' values: names, shapes, fingerprints, the recorder's
  /// own account of text and options, and the first and last block of every layer's inputs.
  Digest identity() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace moefy
