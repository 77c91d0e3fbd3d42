#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "moefy/checkpoint/checkpoint.hpp"
#include "moefy/checkpoint/writer.hpp"
#include "moefy/model/architecture.hpp"

namespace moefy {

/// What the dense checkpoint is made of, without its values: enough to lay out a conversion, and,
/// kept in the manifest, to undo it without the source.
struct SourceModel {
  struct Tensor {
    TensorSpec spec;
    std::size_t file = 0;
  };
  struct File {
    std::string name;
    std::map<std::string, std::string> metadata;
    std::vector<std::size_t> tensors;  ///< in file order
  };

  std::string config_text;
  std::vector<Tensor> tensors;  ///< by name, ascending
  std::vector<File> files;
  std::vector<LayerInfo> layers;

  /// Index of the tensor with that name, or -1.
  std::ptrdiff_t find(std::string_view name) const;
  /// The same; InternalError if it is missing.
  std::size_t at(std::string_view name) const;
};

SourceModel describe_source(const Checkpoint& checkpoint, std::vector<LayerInfo> layers);

/// JSON text for the manifest and back (InputError naming `file`).
std::string source_to_json(const SourceModel& source);
SourceModel source_from_json(const std::string& text, std::string config_text,
                             const std::string& file);

}  // namespace moefy
