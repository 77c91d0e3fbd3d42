#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace moefy {

/// A lock file beside an output: O_EXCL; host, pid and process start time inside; touched every 10
/// s by its holder. The lock of a dead process of this host, or of another host untouched for 60 s,
/// is taken over with a warning. Released by the destructor.
class OutputLock {
 public:
  /// Throws UsageError naming the holder if it is alive.
  OutputLock(std::filesystem::path path, const std::function<void(const std::string&)>& warn);
  ~OutputLock();
  OutputLock(const OutputLock&) = delete;
  OutputLock& operator=(const OutputLock&) = delete;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// The folder OUT.journal/: fingerprint.json and one checksummed record a finished item, each
/// written by fsync and rename. Rank 0 only.
class Journal {
 public:
  /// Opens or creates. An existing journal must have an equal fingerprint (canonical JSON text),
  /// else UsageError that lists what differs, by key. `fresh` (--force) discards what is there.
  Journal(std::filesystem::path directory, const std::string& fingerprint_json, bool fresh);

  /// Records that were complete, by id; a damaged one is dropped with `warn` and done again.
  std::vector<std::int64_t> finished(const std::function<void(const std::string&)>& warn);
  std::vector<std::byte> read(std::int64_t id) const;
  void append(std::int64_t id, std::span<const std::byte> record);
  /// Removes the folder: the output stands, or nothing was finished.
  void remove();
  const std::filesystem::path& directory() const { return directory_; }

 private:
  std::filesystem::path directory_;
};

/// Decodes one record file's bytes (magic, id, length, checksum, payload); empty if damaged.
std::optional<std::vector<std::byte>> decode_journal_record(std::span<const std::byte> file,
                                                            std::int64_t id);

/// "key: journal has A, now B" lines for two JSON objects.
std::vector<std::string> fingerprint_differences(const std::string& old_json,
                                                 const std::string& new_json);

}  // namespace moefy
