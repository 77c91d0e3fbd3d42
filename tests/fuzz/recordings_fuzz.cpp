// modules: store
#include <sys/mman.h>
#include <unistd.h>

#include <cmath>
#include <cstdlib>
#include <string>

#include "moefy/core/error.hpp"
#include "moefy/store/recordings.hpp"

namespace {

/// A file in memory that has a path, because recordings are read where they lie.
class MemoryFile {
 public:
  MemoryFile() : descriptor_(memfd_create("recordings", 0)) {
    if (descriptor_ < 0) std::abort();
    path_ = "/proc/self/fd/" + std::to_string(descriptor_);
  }
  ~MemoryFile() { close(descriptor_); }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;

  void write(const std::uint8_t* data, std::size_t size) const {
    if (ftruncate(descriptor_, 0) != 0) std::abort();
    if (pwrite(descriptor_, data, size, 0) != static_cast<ssize_t>(size)) std::abort();
  }
  const std::string& path() const { return path_; }

 private:
  int descriptor_;
  std::string path_;
};

/// The first tokens of a layer and its importance vectors: what is delivered is finite.
void read_layer(const moefy::Recordings& recordings, const moefy::RecordedLayer& layer) {
  const auto all_finite = [](const auto& values) {
    for (const auto value : values)
      if (!std::isfinite(value)) std::abort();
  };
  moefy::Matrix<float> rows(std::min<std::size_t>(recordings.num_tokens(), 64),
                            static_cast<std::size_t>(layer.hidden_size));
  try {
    recordings.read_inputs(layer, 0, rows.view());
    all_finite(rows.values());
    if (layer.has_importance) all_finite(recordings.read_importance(layer).values());
  } catch (const moefy::InputError&) {
  }
}

}  // namespace

/// A recordings file is refused with an InputError, or its layers can be read.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const MemoryFile file;
  file.write(data, size);
  try {
    const moefy::Recordings recordings(file.path());
    for (const moefy::RecordedLayer& layer : recordings.layers()) read_layer(recordings, layer);
  } catch (const moefy::InputError&) {
  }
  return 0;
}
