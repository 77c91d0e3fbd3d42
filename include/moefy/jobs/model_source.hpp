#pragma once

#include <string>
#include <vector>

#include "moefy/checkpoint/checkpoint.hpp"
#include "moefy/model/architecture.hpp"

namespace moefy {

/// A dense model opened for reading, with its FFN layers found.
struct ModelSource {
  Checkpoint checkpoint;
  Architecture architecture;
  std::vector<LayerInfo> layers;
};

/// Opens MODEL (a directory or a name in the Hugging Face cache); `architecture_file` (may be
/// empty) comes before the built-in families. Errors as Checkpoint::open and Architecture.
ModelSource open_model(const std::string& model, const std::string& architecture_file);

/// Names, sizes and header hashes of the model's files as JSON text with sorted keys: cheap, and
/// different as soon as the layout or a size of the checkpoint is. What ranks compare before they
/// read by themselves, and the journal before it resumes.
std::string file_identity_json(const Checkpoint& checkpoint);

}  // namespace moefy
