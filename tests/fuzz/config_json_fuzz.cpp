// modules: model
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "moefy/core/error.hpp"
#include "moefy/model/architecture.hpp"

namespace {

/// A directory with one empty layer's weights; only its config.json changes.
class Workplace {
 public:
  Workplace() {
    std::string pattern = (std::filesystem::temp_directory_path() / "moefy-fuzz-XXXXXX").string();
    if (!mkdtemp(pattern.data())) std::abort();
    path_ = pattern;
    const std::string header =
        R"({"model.layers.0.mlp.gate_proj.weight":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}})";
    const std::uint64_t length = header.size();
    std::ofstream file(path_ / "model.safetensors", std::ios::binary);
    file.write(reinterpret_cast<const char*>(&length), sizeof length);
    file << header;
  }
  ~Workplace() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  Workplace(const Workplace&) = delete;
  Workplace& operator=(const Workplace&) = delete;

  void write_config(const std::uint8_t* data, std::size_t size) const {
    std::ofstream file(path_ / "config.json", std::ios::binary | std::ios::trunc);
    file.write(reinterpret_cast<const char*>(data), static_cast<std::streamsize>(size));
  }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

}  // namespace

/// A config.json is refused with an InputError, or read: the tensors are wrong for every config.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const Workplace workplace;
  workplace.write_config(data, size);
  try {
    const auto checkpoint = moefy::Checkpoint::open(workplace.path());
    if (!moefy::Architecture::detect(checkpoint).layers(checkpoint).empty()) std::abort();
  } catch (const moefy::InputError&) {
  }
  return 0;
}
