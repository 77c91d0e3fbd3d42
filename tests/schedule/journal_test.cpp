#include "moefy/schedule/journal.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "moefy/core/error.hpp"
#include "moefy/core/file.hpp"
#include "moefy/core/text.hpp"
#include "support/temp_dir.hpp"

namespace moefy {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr const char* kFingerprint = R"({"options": {"seed": 0, "experts": 16}, "file": "a"})";

/// Warnings that must not come.
void no_warning(const std::string& text) { ADD_FAILURE() << "unexpected warning: " << text; }

std::string message_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const UsageError& error) {
    return error.what();
  }
  return "nothing was thrown";
}

class JournalTest : public testing::Test {
 protected:
  Journal open(const char* fingerprint = kFingerprint, bool fresh = false) const {
    return Journal(folder, fingerprint, fresh);
  }
  /// The file of the only record.
  fs::path record_file() const {
    for (const auto& entry : fs::directory_iterator(folder)) {
      if (entry.path().extension() == ".record") return entry.path();
    }
    return {};
  }

  test::TempDir temp;
  fs::path folder = temp / "map.h5.journal";
};

TEST_F(JournalTest, remembers_the_machine_that_began_it) {
  Journal(folder, kFingerprint, false, "an old one").append(1, {});

  EXPECT_EQ(Journal(folder, kFingerprint, false, "a new one").machine(), "an old one");
  EXPECT_EQ(Journal(folder, kFingerprint, true, "a new one").machine(), "a new one");
}

TEST_F(JournalTest, makes_no_folder_before_the_first_record) {
  Journal journal = open();

  EXPECT_THAT(journal.finished(no_warning), IsEmpty());
  journal.remove();

  EXPECT_TRUE(fs::is_empty(temp.path()));
}

TEST_F(JournalTest, can_be_begun_again_after_it_was_removed) {
  Journal journal = open();
  journal.append(1, to_bytes("one"));
  journal.remove();

  journal.append(2, to_bytes("two"));

  EXPECT_THAT(open().finished(no_warning), ElementsAre(2));
}

TEST_F(JournalTest, keeps_records_over_a_reopening) {
  {
    Journal journal = open();
    journal.append(7, to_bytes("seven"));
    journal.append(0, {});
    journal.append(123456, to_bytes("many"));
  }

  Journal journal = open();

  EXPECT_THAT(journal.finished(no_warning), ElementsAre(0, 7, 123456));
  EXPECT_EQ(journal.read(7), to_bytes("seven"));
  EXPECT_THAT(journal.read(0), IsEmpty());
}

TEST_F(JournalTest, takes_the_newer_of_two_records) {
  Journal journal = open();
  journal.append(1, to_bytes("old"));

  journal.append(1, to_bytes("new"));

  EXPECT_EQ(journal.read(1), to_bytes("new"));
}

TEST_F(JournalTest, does_not_care_for_the_order_of_keys) {
  open().append(1, {});

  Journal journal = open(R"({"file":"a","options":{"experts":16,"seed":0}})");

  EXPECT_THAT(journal.finished(no_warning), ElementsAre(1));
}

TEST_F(JournalTest, refuses_other_options_and_lists_them) {
  open().append(1, {});

  const std::string message =
      message_of([&] { open(R"({"options": {"seed": 1, "experts": 16}, "size": 5})"); });

  EXPECT_THAT(message, HasSubstr("options.seed: journal has 0, now 1"));
  EXPECT_THAT(message, HasSubstr("file: journal has \"a\", now nothing"));
  EXPECT_THAT(message, HasSubstr("size: journal has nothing, now 5"));
  EXPECT_THAT(message, testing::Not(HasSubstr("experts")));
}

TEST_F(JournalTest, of_another_run_is_abandoned_where_nothing_is_finished) {
  constexpr const char* kOther = R"({"options": {"seed": 1}})";
  EXPECT_FALSE(is_abandoned_journal(folder, kOther, 4)) << "there is none";

  open().append(4, {});
  EXPECT_TRUE(is_abandoned_journal(folder, kOther, 4));
  EXPECT_FALSE(is_abandoned_journal(folder, kFingerprint, 4)) << "it is this run's";
  EXPECT_FALSE(is_abandoned_journal(folder, kOther, 5)) << "item 4 is finished";

  open().append(0, {});
  EXPECT_FALSE(is_abandoned_journal(folder, kOther, 4));
}

TEST_F(JournalTest, starts_anew_when_asked_to) {
  open().append(1, {});

  Journal journal = open(R"({"options": {"seed": 1}})", true);

  EXPECT_THAT(journal.finished(no_warning), IsEmpty());
}

TEST_F(JournalTest, refuses_a_folder_that_is_no_journal_even_with_force) {
  fs::create_directory(folder);
  write_file_atomically(folder / "thesis.tex", "years of work");

  EXPECT_THAT(message_of([&] { open(); }), HasSubstr("thesis.tex"));
  EXPECT_THAT(message_of([&] { open(kFingerprint, true); }), HasSubstr("thesis.tex"));

  EXPECT_TRUE(fs::exists(folder / "thesis.tex"));
}

TEST_F(JournalTest, goes_on_where_a_crash_came_before_the_fingerprint) {
  fs::create_directory(folder);
  std::ofstream(folder / "machine.txt") << "an old one";
  std::ofstream(folder / ".fingerprint.json.4711.tmp") << "{";

  Journal journal = open();

  EXPECT_THAT(journal.finished(no_warning), IsEmpty());
  EXPECT_FALSE(fs::exists(folder / ".fingerprint.json.4711.tmp"));
}

TEST_F(JournalTest, drops_a_record_with_any_bit_flipped) {
  open().append(5, to_bytes("a layer's result"));
  const std::string good = read_text_file(record_file());
  for (std::size_t at = 0; at < good.size(); ++at) {
    SCOPED_TRACE(at);
    std::string bad = good;
    bad[at] = static_cast<char>(bad[at] ^ 4);
    write_file_atomically(folder / "00005.record", bad);
    int warnings = 0;

    Journal journal = open();

    EXPECT_THAT(journal.finished([&](const std::string&) { ++warnings; }), IsEmpty());
    EXPECT_EQ(warnings, 1);
    EXPECT_TRUE(record_file().empty());
  }
}

TEST_F(JournalTest, drops_a_record_cut_anywhere) {
  open().append(5, to_bytes("a layer's result"));
  const std::string good = read_text_file(record_file());
  for (std::size_t length = 0; length < good.size(); ++length) {
    SCOPED_TRACE(length);
    write_file_atomically(folder / "00005.record", std::string_view(good).substr(0, length));

    EXPECT_THAT(open().finished([](const std::string&) {}), IsEmpty());
  }
}

TEST_F(JournalTest, drops_a_record_under_another_items_name) {
  open().append(5, to_bytes("five"));
  fs::rename(record_file(), folder / "00006.record");
  std::string warning;

  EXPECT_THAT(open().finished([&](const std::string& text) { warning = text; }), IsEmpty());

  EXPECT_THAT(warning, HasSubstr("00006.record"));
}

TEST_F(JournalTest, refuses_a_damaged_fingerprint) {
  open().append(1, {});
  write_file_atomically(folder / "fingerprint.json", "{\"seed\": ");

  EXPECT_THAT(message_of([&] { open(); }), HasSubstr("--force"));
}

TEST_F(JournalTest, leaves_nothing_when_removed) {
  Journal journal = open();
  journal.append(1, to_bytes("one"));

  journal.remove();

  EXPECT_TRUE(fs::is_empty(temp.path()));
}

TEST_F(JournalTest, clears_away_what_a_crash_while_removing_left) {
  open().append(1, to_bytes("one"));
  fs::rename(folder, temp / "map.h5.journal.discarded");

  Journal journal = open();

  EXPECT_THAT(journal.finished(no_warning), IsEmpty());
  EXPECT_FALSE(fs::exists(temp / "map.h5.journal.discarded"));
}

TEST_F(JournalTest, says_which_folder_cannot_be_made) {
  EXPECT_THROW(Journal(temp / "missing" / "x.journal", kFingerprint, false), IoError);
}

TEST(JournalRecordTest, survives_encoding) {
  const auto record = to_bytes("content");

  EXPECT_EQ(decode_journal_record(encode_journal_record(9, record), 9), record);
}

TEST(FingerprintTest, has_no_difference_to_itself) {
  EXPECT_THAT(fingerprint_differences(kFingerprint, kFingerprint), IsEmpty());
  EXPECT_THAT(fingerprint_differences("{}", "{}"), IsEmpty());
}

TEST(FingerprintTest, compares_list_elements) {
  EXPECT_THAT(fingerprint_differences(R"({"files": ["a", "b"]})", R"({"files": ["a", "c"]})"),
              ElementsAre("files.1: journal has \"b\", now \"c\""));
}

TEST(FingerprintTest, refuses_what_is_no_object) {
  EXPECT_THROW(fingerprint_differences("[1]", "{}"), InputError);
}

}  // namespace
}  // namespace moefy
