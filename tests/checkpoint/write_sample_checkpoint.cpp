#include <cstdio>
#include <exception>
#include <filesystem>
#include <numeric>

#include "moefy/checkpoint/writer.hpp"

namespace {

/// Every tensor holds 0, 1, 2, … in its own type; odd sizes stand before wide types on purpose.
void write_sample(const std::filesystem::path& directory) {
  const moefy::ShardPlan plan = moefy::plan_shards({{"bytes", moefy::DType::u8, {3}},
                                                    {"floats", moefy::DType::f32, {2, 5}},
                                                    {"halves", moefy::DType::f16, {3}},
                                                    {"brains", moefy::DType::bf16, {2, 2, 2}},
                                                    {"scalar", moefy::DType::f32, {}},
                                                    {"nothing", moefy::DType::f32, {0, 4}}},
                                                   50);
  for (const moefy::ShardPlan::File& file : plan.files) {
    moefy::SafetensorsWriter writer(directory / file.file_name, file.tensors);
    for (std::size_t i = 0; i < file.tensors.size(); ++i) {
      const moefy::TensorSpec& tensor = file.tensors[i];
      std::vector<std::byte> bytes(tensor.num_bytes());
      std::vector<float> values(bytes.size() / moefy::size_of(tensor.dtype));
      std::iota(values.begin(), values.end(), 0.0F);
      if (tensor.dtype == moefy::DType::u8) {
        for (std::size_t k = 0; k < bytes.size(); ++k) bytes[k] = static_cast<std::byte>(k);
      } else {
        moefy::narrow(tensor.dtype, values, bytes);
      }
      writer.write(i, 0, bytes);
    }
    writer.finish();
  }
  moefy::write_index(directory, plan);
}

}  // namespace

/// Writes a sharded checkpoint into the folder it is given, for the safetensors library to read.
int main(int argc, char** argv) {
  if (argc != 2) return 2;
  try {
    write_sample(argv[1]);
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
