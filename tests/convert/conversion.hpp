#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "moefy/convert/convert.hpp"
#include "support/temp_dir.hpp"
#include "support/tiny_checkpoint.hpp"

namespace moefy::test {

/// Counts of a made-up map.
struct MapShape {
  std::size_t experts = 4;
  std::size_t shared = 0;
  std::int64_t top_k = 0;
  std::int64_t only_layer = -1;  ///< -1: all
  std::uint64_t seed = 1;
};

/// A map of the checkpoint with random balanced partitions and random routers.
ExpertMap random_map(const Checkpoint& checkpoint, const std::vector<LayerInfo>& layers,
                     const MapShape& shape);

/// A tiny model written to disk, a map of it, and what they are converted to.
class Conversion {
 public:
  explicit Conversion(TinyModel model, const MapShape& shape = {}, std::size_t num_shards = 1);

  const Checkpoint& dense() const { return dense_; }
  const std::vector<LayerInfo>& layers() const { return layers_; }
  const ExpertMap& map() const { return *map_; }
  std::filesystem::path map_file() const { return dir_ / "map.h5"; }
  std::filesystem::path output() const { return dir_ / "out"; }
  std::filesystem::path restored() const { return dir_ / "restored"; }

  /// Changes the map and writes it again.
  void change_map(const std::function<void(ExpertMap&)>& change);

  std::shared_ptr<const ConversionPlan> plan(const ConvertConfig& config) const;
  /// Plans and writes everything to output().
  std::shared_ptr<const ConversionPlan> convert(const ConvertConfig& config = {});
  /// Every difference that verify would print: structure, bytes, and each layer's check.
  std::vector<std::string> verify() const;
  /// Writes the dense checkpoint back from output() alone, to restored().
  void restore() const;

 private:
  TempDir dir_;
  Checkpoint dense_;
  std::vector<LayerInfo> layers_;
  std::shared_ptr<ExpertMap> map_;
};

/// Values of a tensor, widened.
std::vector<float> values_of(const Checkpoint& checkpoint, const std::string& name);
/// The tensor's bytes.
std::vector<std::byte> bytes_of(const Checkpoint& checkpoint, const std::string& name);
/// Flips one bit in the file that holds the tensor.
void flip_bit(const Checkpoint& checkpoint, const std::string& name, std::uint64_t byte);
/// Overwrites a tensor's bytes in its file.
void overwrite(const Checkpoint& checkpoint, const std::string& name,
               const std::vector<std::byte>& bytes);

/// A Llama of one head whose FFN layers are given row by row.
TinyModel small_llama();

}  // namespace moefy::test
