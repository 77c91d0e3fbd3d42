// modules: schedule
#include <algorithm>
#include <cstdlib>
#include <string>

#include "moefy/core/error.hpp"
#include "moefy/schedule/journal.hpp"

/// The first byte is the item's id, the rest a record file and, once more, two fingerprints cut at
/// the first line end. A record that is accepted must be the one that encoding its content gives.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::int64_t id = data[0];
  const auto file = std::as_bytes(std::span(data + 1, size - 1));
  if (const auto record = moefy::decode_journal_record(file, id)) {
    const auto encoded = moefy::encode_journal_record(id, *record);
    if (!std::equal(encoded.begin(), encoded.end(), file.begin(), file.end())) std::abort();
  }

  const std::string text(reinterpret_cast<const char*>(data + 1), size - 1);
  const std::size_t line_end = text.find('\n');
  if (line_end == std::string::npos) return 0;
  try {
    moefy::fingerprint_differences(text.substr(0, line_end), text.substr(line_end + 1));
  } catch (const moefy::InputError&) {
  }
  return 0;
}
