#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace moefy {

/// A lock file beside an output: O_EXCL; host, pid and process start time inside; touched by a
/// thread of its holder. The lock of a dead process of this host, or of another host untouched for
/// 60 s, is taken over with a warning. Released by the destructor.
class OutputLock {
 public:
  static constexpr std::chrono::milliseconds kTouchInterval{10'000};

  /// Throws UsageError naming the holder if it is alive, IoError if the file cannot be made.
  OutputLock(std::filesystem::path path, const std::function<void(const std::string&)>& warn,
             std::chrono::milliseconds touch_interval = kTouchInterval);
  /// Stops touching and removes the file, unless somebody else has taken it over meanwhile.
  ~OutputLock();
  OutputLock(const OutputLock&) = delete;
  OutputLock& operator=(const OutputLock&) = delete;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// The folder OUT.journal/: fingerprint.json and one checksummed record a finished item, each
/// written by fsync and rename. The first record makes the folder, so that a run without one leaves
/// nothing. Rank 0 only; one thread. Ids are not negative.
class Journal {
 public:
  /// Opens the journal that is there, which must have an equal fingerprint (a JSON object; the
  /// order of keys does not matter), else UsageError that lists what differs, by key. A folder that
  /// is no journal is a UsageError, too; a place where none can be made an IoError. `fresh`
  /// (--force) discards a journal that is there. `machine` says what kind of machine this is; a new
  /// journal keeps it.
  Journal(std::filesystem::path directory, std::string fingerprint_json, bool fresh,
          std::string machine = {});

  /// Ids of the records that are complete, ascending; a damaged one is removed with `warn`, so that
  /// its item is done again.
  std::vector<std::int64_t> finished(const std::function<void(const std::string&)>& warn);
  /// The record of a finished item. InputError if it is damaged, IoError if it cannot be read.
  std::vector<std::byte> read(std::int64_t id) const;
  /// Makes a record durable, over an older one of the same item.
  void append(std::int64_t id, std::span<const std::byte> record);
  /// Removes the folder, if there is one: the output stands, or nothing was finished. It is renamed
  /// first, so that a crash in the middle leaves nothing that looks like a journal.
  void remove();
  const std::filesystem::path& directory() const { return directory_; }
  /// The machine of the run that began the journal; empty if it did not say.
  const std::string& machine() const { return machine_; }

 private:
  void begin();

  std::filesystem::path directory_;
  std::string fingerprint_;
  std::string machine_;
  bool begun_ = false;  ///< the folder has its fingerprint
};

/// Whether a journal is there that is of another run and finished nothing: it holds no record but,
/// perhaps, one of item `besides`. InputError if its fingerprint is no JSON object.
bool is_abandoned_journal(const std::filesystem::path& directory,
                          const std::string& fingerprint_json, std::int64_t besides);

/// The bytes of one record file.
std::vector<std::byte> encode_journal_record(std::int64_t id, std::span<const std::byte> record);
/// Decodes one record file's bytes (magic, id, length, checksum, payload); empty if damaged.
std::optional<std::vector<std::byte>> decode_journal_record(std::span<const std::byte> file,
                                                            std::int64_t id);

/// "key: journal has A, now B" lines for two JSON objects.
std::vector<std::string> fingerprint_differences(const std::string& old_json,
                                                 const std::string& new_json);

}  // namespace moefy
