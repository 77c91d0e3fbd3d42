#include "moefy/core/file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <utility>

#include "moefy/core/error.hpp"

namespace moefy {

namespace fs = std::filesystem;

InputFile::InputFile(fs::path path) : path_(std::move(path)) {
  descriptor_ = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor_ < 0) throw IoError(path_.string(), "open for reading", errno);
  struct stat status {};
  if (::fstat(descriptor_, &status) != 0) {
    const int error = errno;
    ::close(descriptor_);
    throw IoError(path_.string(), "stat", error);
  }
  if (!S_ISREG(status.st_mode)) {
    ::close(descriptor_);
    throw InputError(path_.string() + ": not a regular file");
  }
  size_ = static_cast<std::uint64_t>(status.st_size);
}

InputFile::~InputFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

InputFile::InputFile(InputFile&& other) noexcept
    : path_(std::move(other.path_)),
      descriptor_(std::exchange(other.descriptor_, -1)),
      size_(other.size_) {}

InputFile& InputFile::operator=(InputFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(descriptor_, other.descriptor_);
  std::swap(size_, other.size_);
  return *this;
}

void InputFile::read(std::uint64_t offset, std::span<std::byte> out) const {
  std::size_t done = 0;
  while (done < out.size()) {
    const ssize_t got = ::pread(descriptor_, out.data() + done, out.size() - done,
                                static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw IoError(path_.string(), "read", errno);
    if (got == 0) {
      throw InputError(
          fmt::format("{}: the file ends at byte {}, expected {} more bytes (truncated?)",
                      path_.string(), offset + done, out.size() - done));
    }
    done += static_cast<std::size_t>(got);
  }
}

WritableFile::WritableFile(fs::path path) : path_(std::move(path)) {
  descriptor_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (descriptor_ < 0) throw IoError(path_.string(), "create", errno);
}

WritableFile::~WritableFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

WritableFile::WritableFile(WritableFile&& other) noexcept
    : path_(std::move(other.path_)), descriptor_(std::exchange(other.descriptor_, -1)) {}

WritableFile& WritableFile::operator=(WritableFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(descriptor_, other.descriptor_);
  return *this;
}

void WritableFile::write(std::uint64_t offset, std::span<const std::byte> bytes) {
  require(descriptor_ >= 0, "write to a finished file");
  std::size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t put = ::pwrite(descriptor_, bytes.data() + done, bytes.size() - done,
                                 static_cast<off_t>(offset + done));
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) throw IoError(path_.string(), "write", errno);
    done += static_cast<std::size_t>(put);
  }
}

void WritableFile::finish() {
  require(descriptor_ >= 0, "finish of a finished file");
  if (::fsync(descriptor_) != 0) throw IoError(path_.string(), "fsync", errno);
  if (::close(std::exchange(descriptor_, -1)) != 0) throw IoError(path_.string(), "close", errno);
}

std::string read_text_file(const fs::path& path, std::uint64_t limit) {
  const InputFile file(path);
  if (file.size() > limit) {
    throw InputError(fmt::format("{}: {} bytes, more than the {} allowed for this kind of file",
                                 path.string(), file.size(), limit));
  }
  std::string text(file.size(), '\0');
  file.read(0, std::as_writable_bytes(std::span(text)));
  return text;
}

void write_file_atomically(const fs::path& path, std::span<const std::byte> bytes) {
  const fs::path temporary =
      path.parent_path() / fmt::format(".{}.{}.tmp", path.filename().string(), ::getpid());
  try {
    WritableFile file(temporary);
    file.write(0, bytes);
    file.finish();
    if (::rename(temporary.c_str(), path.c_str()) != 0)
      throw IoError(path.string(), "rename the finished file to it", errno);
  } catch (...) {
    ::unlink(temporary.c_str());
    throw;
  }
  sync_directory(path.parent_path());
}

void write_file_atomically(const fs::path& path, std::string_view text) {
  write_file_atomically(path, std::as_bytes(std::span(text)));
}

void sync_directory(const fs::path& path) {
  const fs::path folder = path.empty() ? fs::path(".") : path;
  const int descriptor = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) throw IoError(folder.string(), "open the folder", errno);
  // Some network file systems cannot fsync a folder (EINVAL); the rename stands all the same.
  const int result = ::fsync(descriptor);
  const int error = errno;
  ::close(descriptor);
  if (result != 0 && error != EINVAL && error != ENOTSUP)
    throw IoError(folder.string(), "fsync the folder", error);
}

OutputDirectory::OutputDirectory(fs::path target, bool replace)
    : target_(std::move(target)), replace_(replace) {
  if (target_.filename().empty()) target_ = target_.parent_path();  // "OUT/" means OUT
  if (fs::exists(fs::symlink_status(target_)) && !replace_) {
    throw UsageError(target_.string() + ": exists already; --force replaces it");
  }
  staging_ = target_.parent_path() /
             fmt::format(".{}.{}.partial", target_.filename().string(), ::getpid());
  std::error_code error;
  fs::create_directories(staging_, error);
  if (error) throw IoError(staging_.string(), "create the folder", error.value());
}

OutputDirectory::~OutputDirectory() {
  if (committed_) return;
  std::error_code ignored;
  fs::remove_all(staging_, ignored);
}

void OutputDirectory::commit() {
  std::error_code error;
  for (const fs::directory_entry& entry : fs::recursive_directory_iterator(staging_)) {
    if (entry.is_directory()) {
      sync_directory(entry.path());
      continue;
    }
    const int descriptor = ::open(entry.path().c_str(), O_RDONLY | O_CLOEXEC);
    if (descriptor < 0) throw IoError(entry.path().string(), "open for fsync", errno);
    const int result = ::fsync(descriptor);
    const int sync_error = errno;
    ::close(descriptor);
    if (result != 0) throw IoError(entry.path().string(), "fsync", sync_error);
  }
  sync_directory(staging_);
  fs::path old;
  if (fs::exists(fs::symlink_status(target_))) {
    require(replace_, "the output appeared while it was being made");
    if (::renameat2(AT_FDCWD, staging_.c_str(), AT_FDCWD, target_.c_str(), RENAME_EXCHANGE) == 0) {
      old = staging_;
    } else {
      old = staging_;
      old += ".old";
      fs::rename(target_, old, error);
      if (error) throw IoError(target_.string(), "rename the old output away", error.value());
    }
  }
  if (old != staging_ && ::rename(staging_.c_str(), target_.c_str()) != 0)
    throw IoError(target_.string(), "rename the finished output to it", errno);
  committed_ = true;
  sync_directory(target_.parent_path());
  if (!old.empty()) fs::remove_all(old, error);
}

void require_free_space(const fs::path& path, std::uint64_t bytes) {
  fs::path existing = fs::absolute(path);
  while (!fs::exists(existing) && existing.has_relative_path()) existing = existing.parent_path();
  struct statvfs status {};
  if (::statvfs(existing.c_str(), &status) != 0)
    throw IoError(existing.string(), "ask for free space", errno);
  const std::uint64_t available =
      static_cast<std::uint64_t>(status.f_bavail) * static_cast<std::uint64_t>(status.f_frsize);
  if (available >= bytes) return;
  throw IoError(fmt::format("{}: {} bytes are needed, {} are free on this file system",
                            path.string(), bytes, available));
}

}  // namespace moefy
