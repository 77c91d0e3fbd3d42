#include "moefy/schedule/journal.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <optional>

#include "moefy/core/error.hpp"
#include "moefy/core/file.hpp"
#include "moefy/core/hash.hpp"

namespace moefy {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kFingerprintFile = "fingerprint.json";
constexpr std::string_view kMachineFile = "machine.txt";
constexpr std::string_view kRecordSuffix = ".record";

/// The head of a record file: little-endian, as everything moefy writes. The checksum is over id,
/// length and payload.
struct RecordHead {
  std::uint64_t magic = 0;
  std::int64_t id = 0;
  std::uint64_t length = 0;
  std::uint64_t checksum_low = 0;
  std::uint64_t checksum_high = 0;
};
static_assert(sizeof(RecordHead) == 40);
constexpr std::uint64_t kRecordMagic = 0x3144'5279'6665'6f4dULL;  // "MoefyRD1"

Digest record_digest(std::int64_t id, std::span<const std::byte> payload) {
  Hasher hasher;
  hasher.add_number(static_cast<std::uint64_t>(id));
  hasher.add_number(payload.size());
  hasher.add(payload);
  return hasher.digest();
}

fs::path record_path(const fs::path& directory, std::int64_t id) {
  return directory / fmt::format("{:05}{}", id, kRecordSuffix);
}

/// The id in a record's file name, if it is one that record_path() makes.
std::optional<std::int64_t> id_of(const fs::path& path) {
  const std::string name = path.filename().string();
  std::int64_t id = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), id);
  if (error != std::errc{} || id < 0) return std::nullopt;
  if (record_path({}, id).string() != name) return std::nullopt;
  return id;
}

std::vector<std::byte> read_all(const fs::path& path) {
  const InputFile file(path);
  std::vector<std::byte> bytes(file.size());
  file.read(0, bytes);
  return bytes;
}

[[noreturn]] void throw_io(const fs::path& path, const char* action, const std::error_code& error) {
  throw IoError(path.string(), action, error.value());
}

void remove_tree(const fs::path& path) {
  std::error_code error;
  fs::remove_all(path, error);
  if (error) throw_io(path, "remove the folder", error);
}

/// Where a journal goes before it is removed: under that name nobody takes it for one.
fs::path discarded_path(const fs::path& directory) {
  fs::path discarded = directory;
  discarded += ".discarded";
  return discarded;
}

void discard(const fs::path& directory) {
  const fs::path discarded = discarded_path(directory);
  remove_tree(discarded);
  std::error_code error;
  fs::rename(directory, discarded, error);
  if (error) throw_io(directory, "rename the journal", error);
  sync_directory(directory.parent_path());
  remove_tree(discarded);
}

void check_fingerprint(const fs::path& directory, const std::string& fingerprint_json) {
  const fs::path file = directory / kFingerprintFile;
  const std::string found = read_text_file(file);
  std::vector<std::string> differences;
  try {
    differences = fingerprint_differences(found, fingerprint_json);
  } catch (const InputError& error) {
    throw UsageError(fmt::format("{}: {}; --force starts anew", file.string(), error.what()));
  }
  if (differences.empty()) return;
  std::vector<std::string> lines{fmt::format(
      "{}: an unfinished run with other options or input is in the way:", directory.string())};
  for (const std::string& difference : differences) lines.push_back("  " + difference);
  lines.emplace_back("repeat the command as it was to resume, or discard it with --force");
  throw UsageError(lines);
}

/// True for what an interrupted write_file_atomically leaves.
bool is_temporary(const fs::path& path) {
  const std::string name = path.filename().string();
  return name.starts_with('.') && name.ends_with(".tmp");
}

/// A folder without a fingerprint is a journal that was just being made, or somebody else's folder.
void require_only_temporaries(const fs::path& directory) {
  for (const fs::directory_entry& entry : fs::directory_iterator(directory)) {
    if (is_temporary(entry.path()) || entry.path().filename() == kMachineFile) continue;
    throw UsageError(
        fmt::format("{}: is in the way of the journal, but is none ({} is in it); "
                    "remove it or choose another output",
                    directory.string(), entry.path().filename().string()));
  }
}

}  // namespace

bool is_abandoned_journal(const fs::path& directory, const std::string& fingerprint_json,
                          std::int64_t besides) {
  const fs::path fingerprint_file = directory / kFingerprintFile;
  if (!fs::exists(fingerprint_file)) return false;
  for (const fs::directory_entry& entry : fs::directory_iterator(directory)) {
    const std::optional<std::int64_t> id = id_of(entry.path());
    if (id && *id != besides) return false;
  }
  return !fingerprint_differences(read_text_file(fingerprint_file), fingerprint_json).empty();
}

std::vector<std::byte> encode_journal_record(std::int64_t id, std::span<const std::byte> record) {
  const Digest digest = record_digest(id, record);
  const RecordHead head{kRecordMagic, id, record.size(), digest.low, digest.high};
  std::vector<std::byte> file(sizeof head + record.size());
  std::memcpy(file.data(), &head, sizeof head);
  std::copy(record.begin(), record.end(), file.begin() + sizeof head);
  return file;
}

std::optional<std::vector<std::byte>> decode_journal_record(std::span<const std::byte> file,
                                                            std::int64_t id) {
  RecordHead head;
  if (file.size() < sizeof head) return std::nullopt;
  std::memcpy(&head, file.data(), sizeof head);
  const auto payload = file.subspan(sizeof head);
  if (head.magic != kRecordMagic || head.id != id || head.length != payload.size()) {
    return std::nullopt;
  }
  if (record_digest(id, payload) != Digest{head.checksum_low, head.checksum_high}) {
    return std::nullopt;
  }
  return std::vector<std::byte>(payload.begin(), payload.end());
}

Journal::Journal(fs::path directory, std::string fingerprint_json, bool fresh, std::string machine)
    : directory_(std::move(directory)),
      fingerprint_(std::move(fingerprint_json)),
      machine_(std::move(machine)) {
  if (directory_.filename().empty()) directory_ = directory_.parent_path();  // "OUT.journal/"
  remove_tree(discarded_path(directory_));
  const fs::path fingerprint_file = directory_ / kFingerprintFile;
  if (fresh && fs::exists(fingerprint_file)) discard(directory_);
  if (fs::exists(fingerprint_file)) {
    check_fingerprint(directory_, fingerprint_);
    const fs::path machine_file = directory_ / kMachineFile;
    machine_ = fs::exists(machine_file) ? read_text_file(machine_file) : std::string();
    begun_ = true;
  } else if (fs::exists(directory_)) {
    require_only_temporaries(directory_);
  } else {
    const fs::path parent = fs::absolute(directory_).parent_path();
    if (!fs::is_directory(parent)) throw IoError(parent.string(), "find the folder", ENOENT);
  }
}

void Journal::begin() {
  std::error_code error;
  fs::create_directory(directory_, error);
  if (error) throw_io(directory_, "create the folder", error);
  if (!machine_.empty()) write_file_atomically(directory_ / kMachineFile, machine_);
  // Last, because it makes the folder a journal.
  write_file_atomically(directory_ / kFingerprintFile, fingerprint_);
  sync_directory(directory_.parent_path());
  begun_ = true;
}

std::vector<std::int64_t> Journal::finished(const std::function<void(const std::string&)>& warn) {
  if (!fs::exists(directory_)) return {};
  std::vector<fs::path> files;
  for (const fs::directory_entry& entry : fs::directory_iterator(directory_)) {
    files.push_back(entry.path());
  }
  std::vector<std::int64_t> ids;
  for (const fs::path& file : files) {
    const std::optional<std::int64_t> id = id_of(file);
    std::error_code ignored;
    if (is_temporary(file)) fs::remove(file, ignored);
    if (!id) continue;
    if (decode_journal_record(read_all(file), *id)) {
      ids.push_back(*id);
    } else {
      warn(fmt::format("{}: the record is damaged; its item is done again", file.string()));
      fs::remove(file, ignored);
    }
  }
  std::sort(ids.begin(), ids.end());
  return ids;
}

std::vector<std::byte> Journal::read(std::int64_t id) const {
  const fs::path file = record_path(directory_, id);
  auto record = decode_journal_record(read_all(file), id);
  if (!record) throw InputError(fmt::format("{}: the journal record is damaged", file.string()));
  return std::move(*record);
}

void Journal::append(std::int64_t id, std::span<const std::byte> record) {
  require(id >= 0, "ids of journal records are not negative");
  if (!begun_) begin();
  write_file_atomically(record_path(directory_, id), encode_journal_record(id, record));
}

void Journal::remove() {
  if (fs::exists(directory_)) discard(directory_);
  begun_ = false;
}

}  // namespace moefy
