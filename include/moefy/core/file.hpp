#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace moefy {

/// A file open for positioned reading (pread; never mapped, so that truncation is a message and
/// not a signal). Safe to read from several threads.
class InputFile {
 public:
  /// Throws IoError if it cannot be opened, InputError if it is not a regular file.
  explicit InputFile(std::filesystem::path path);
  ~InputFile();
  InputFile(InputFile&& other) noexcept;
  InputFile& operator=(InputFile&& other) noexcept;

  const std::filesystem::path& path() const { return path_; }
  /// Bytes, at the time it was opened.
  std::uint64_t size() const { return size_; }
  /// Fills `out` from `offset`. Throws InputError naming path and offset if the file ends before,
  /// IoError if reading fails.
  void read(std::uint64_t offset, std::span<std::byte> out) const;

 private:
  std::filesystem::path path_;
  int descriptor_ = -1;
  std::uint64_t size_ = 0;
};

/// A file open for positioned writing.
class WritableFile {
 public:
  /// Creates or truncates `path`. Throws IoError.
  explicit WritableFile(std::filesystem::path path);
  ~WritableFile();
  WritableFile(WritableFile&& other) noexcept;
  WritableFile& operator=(WritableFile&& other) noexcept;

  const std::filesystem::path& path() const { return path_; }
  /// Throws IoError with path and cause (full disk, quota …).
  void write(std::uint64_t offset, std::span<const std::byte> bytes);
  /// fsync and close; later writes are an InternalError. Without it the destructor just closes.
  void finish();

 private:
  std::filesystem::path path_;
  int descriptor_ = -1;
};

/// Whole content of a small file; InputError above `limit` bytes.
std::string read_text_file(const std::filesystem::path& path, std::uint64_t limit = 64u << 20);

/// Writes beside `path`, fsyncs file and folder, and renames over `path`: readers see the old or
/// the new content, never a part. Nothing is left behind on failure.
void write_file_atomically(const std::filesystem::path& path, std::span<const std::byte> bytes);
void write_file_atomically(const std::filesystem::path& path, std::string_view text);

/// fsync of a folder, so that names in it survive a crash.
void sync_directory(const std::filesystem::path& path);

/// A folder that appears complete or not at all: work in `staging()`, then `commit()`.
class OutputDirectory {
 public:
  /// Makes the hidden staging folder beside `target`. An existing `target` is refused with
  /// UsageError unless `replace` (it then stays untouched until commit). IoError otherwise.
  OutputDirectory(std::filesystem::path target, bool replace);
  /// Removes the staging folder if it was not committed.
  ~OutputDirectory();
  OutputDirectory(const OutputDirectory&) = delete;
  OutputDirectory& operator=(const OutputDirectory&) = delete;

  const std::filesystem::path& staging() const { return staging_; }
  /// fsyncs everything in the staging folder and renames it to the target; an old target is
  /// exchanged (renameat2) and then removed.
  void commit();

 private:
  std::filesystem::path target_;
  std::filesystem::path staging_;
  bool replace_ = false;
  bool committed_ = false;
};

/// Throws IoError naming the bytes needed and free if the file system of `path` has less than
/// `bytes` available. `path` need not exist yet; its nearest existing parent is asked.
void require_free_space(const std::filesystem::path& path, std::uint64_t bytes);

}  // namespace moefy
