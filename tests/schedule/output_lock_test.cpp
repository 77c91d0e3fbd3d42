#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <optional>
#include <thread>

#include "moefy/core/error.hpp"
#include "moefy/core/file.hpp"
#include "moefy/schedule/journal.hpp"
#include "support/temp_dir.hpp"

namespace moefy {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

void no_warning(const std::string& text) { ADD_FAILURE() << "unexpected warning: " << text; }

std::string message_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const UsageError& error) {
    return error.what();
  }
  return "nothing was thrown";
}

/// A process that has ended, and whose number nobody has yet.
pid_t dead_process() {
  const pid_t child = fork();
  if (child == 0) _exit(0);
  waitpid(child, nullptr, 0);
  return child;
}

class OutputLockTest : public testing::Test {
 protected:
  /// The text of a lock of this process, changed by `change`.
  std::string own_text() {
    const OutputLock lock(path, no_warning);
    return read_text_file(path);
  }
  void touch(std::chrono::seconds ago) const {
    fs::last_write_time(path, fs::file_time_type::clock::now() - ago);
  }

  test::TempDir temp;
  fs::path path = temp / "map.h5.lock";
  std::string warning;
  std::function<void(const std::string&)> warn = [this](const std::string& text) {
    warning = text;
  };
};

/// The text of a lock with another value for `key`, which must be there.
std::string with_value(std::string text, const std::string& key, const std::string& value) {
  const std::size_t begin = text.find("\"" + key + "\":") + key.size() + 3;
  const std::size_t end = text.find_first_of(",}", begin);
  return text.replace(begin, end - begin, value);
}

TEST_F(OutputLockTest, is_gone_after_its_holder) {
  { const OutputLock lock(path, no_warning); }

  EXPECT_TRUE(fs::is_empty(temp.path()));
}

TEST_F(OutputLockTest, is_refused_while_held) {
  const OutputLock lock(path, no_warning);

  EXPECT_THAT(message_of([&] { OutputLock(path, no_warning); }),
              HasSubstr("process " + std::to_string(getpid())));

  EXPECT_TRUE(fs::exists(path));
}

TEST_F(OutputLockTest, is_taken_over_from_a_dead_process) {
  write_file_atomically(path, with_value(own_text(), "pid", std::to_string(dead_process())));

  const OutputLock lock(path, warn);

  EXPECT_THAT(warning, HasSubstr("taken over"));
  EXPECT_THAT(read_text_file(path), HasSubstr("\"pid\":" + std::to_string(getpid())));
}

TEST_F(OutputLockTest, is_taken_over_from_an_earlier_process_with_the_same_number) {
  write_file_atomically(path, with_value(own_text(), "start", "1"));

  const OutputLock lock(path, warn);

  EXPECT_THAT(warning, HasSubstr("taken over"));
}

TEST_F(OutputLockTest, of_another_host_is_respected_when_fresh) {
  write_file_atomically(path, with_value(own_text(), "host", "\"elsewhere\""));

  EXPECT_THAT(message_of([&] { OutputLock(path, no_warning); }), HasSubstr("elsewhere"));
}

TEST_F(OutputLockTest, of_another_host_is_taken_over_when_untouched_for_a_minute) {
  write_file_atomically(path, with_value(own_text(), "host", "\"elsewhere\""));
  touch(std::chrono::seconds(62));

  const OutputLock lock(path, warn);

  EXPECT_THAT(warning, HasSubstr("elsewhere"));
}

TEST_F(OutputLockTest, without_a_name_is_respected_for_a_minute) {
  write_file_atomically(path, "");

  EXPECT_THAT(message_of([&] { OutputLock(path, no_warning); }), HasSubstr("did not say its name"));
  touch(std::chrono::seconds(62));
  const OutputLock lock(path, warn);

  EXPECT_THAT(warning, HasSubstr("taken over"));
}

TEST_F(OutputLockTest, is_touched_while_held) {
  const OutputLock lock(path, no_warning, std::chrono::milliseconds(1));
  const auto old = fs::file_time_type::clock::now() - std::chrono::hours(1);
  fs::last_write_time(path, old);

  // Ends only if the touching thread does its work.
  while (fs::last_write_time(path) == old) std::this_thread::yield();

  SUCCEED();
}

TEST_F(OutputLockTest, is_not_removed_when_somebody_else_has_taken_it) {
  {
    const OutputLock lock(path, no_warning);
    write_file_atomically(path, "somebody else");
  }

  EXPECT_EQ(read_text_file(path), "somebody else");
}

TEST_F(OutputLockTest, says_where_it_cannot_be_made) {
  EXPECT_THROW(OutputLock(temp / "missing" / "map.lock", no_warning), IoError);
}

}  // namespace
}  // namespace moefy
