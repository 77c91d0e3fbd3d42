#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace moefy {

/// The bytes of a file that is to be checked, wherever it lies.
class StructureBytes {
 public:
  virtual ~StructureBytes() = default;
  virtual std::uint64_t size() const = 0;
  /// `size` bytes from `offset` on, inside the file; they stay valid as long as this object.
  virtual std::span<const std::byte> read(std::uint64_t offset, std::uint64_t size) = 0;
};

/// A file in memory.
class StructureInMemory final : public StructureBytes {
 public:
  explicit StructureInMemory(std::span<const std::byte> file) : file_(file) {}
  std::uint64_t size() const override { return file_.size(); }
  std::span<const std::byte> read(std::uint64_t offset, std::uint64_t size) override {
    return file_.subspan(offset, size);
  }

 private:
  std::span<const std::byte> file_;
};

/// Walks the HDF5 part of a file behind a user block of `user_block` bytes before the library opens
/// it: HDF5 releases in wide use run into endless loops and out of their buffers when metadata was
/// forged or damaged. Accepts what maps and recordings consist of: the earliest object format,
/// groups by symbol table, contiguous or compact data sets of integers, floats and texts,
/// attributes of these, and no two structures that overlap. Reads the structures, not the values of
/// data sets. The file has at least `user_block` bytes. Throws InputError naming `name` and the
/// path inside the file.
void check_structure(StructureBytes& file, std::size_t user_block, const std::string& name);

}  // namespace moefy
