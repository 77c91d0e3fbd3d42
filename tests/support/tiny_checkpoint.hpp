#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "moefy/core/dtype.hpp"

namespace moefy::test {

/// One tensor with its little-endian bytes.
struct TinyTensor {
  std::string name;
  DType dtype = DType::f32;
  std::vector<std::int64_t> shape;
  std::vector<std::byte> bytes;
};

/// A whole model small enough to be held in memory: change what the test is about, then write it.
struct TinyModel {
  std::string config;  ///< text of config.json
  std::vector<TinyTensor> tensors;

  /// The tensor of that name; std::out_of_range if there is none.
  TinyTensor& at(const std::string& name);
  void erase(const std::string& name);
};

struct TinySize {
  std::int64_t layers = 2;
  std::int64_t hidden = 16;
  std::int64_t neurons = 24;
  DType dtype = DType::f32;
  std::uint64_t seed = 1;
};

/// Values of standard deviation 0.1 that depend on name and seed alone.
TinyTensor random_tensor(std::string name, DType dtype, std::vector<std::int64_t> shape,
                         std::uint64_t seed = 1);

/// A model of a built-in family, named as transformers names its tensors. The Llama-like families
/// (llama, mistral, qwen2, qwen3, gemma, gemma2, gemma3_text, granite) are complete; of the others
/// (phi3, gpt2, opt, gpt_neox, bert, t5, t5-gated) there are the FFN layers and an embedding.
/// std::invalid_argument for other names.
TinyModel tiny_model(const std::string& family, const TinySize& size = {});

/// The bytes of a safetensors file, made without moefy's writer. `metadata` is left out if empty.
std::string safetensors_file(const std::vector<TinyTensor>& tensors,
                             const std::map<std::string, std::string>& metadata = {});
/// A safetensors file around any header text, to build files that are wrong on purpose.
std::string safetensors_file(const std::string& header, std::size_t data_bytes);

/// config.json and weights: one model.safetensors, or for several shards the numbered files and
/// their index (tensors dealt out in turn). Makes the directory.
void write_checkpoint(const TinyModel& model, const std::filesystem::path& directory,
                      std::size_t num_shards = 1);

void write_text(const std::filesystem::path& path, const std::string& text);
std::string read_text(const std::filesystem::path& path);

}  // namespace moefy::test
