#include "moefy/core/file.hpp"

#include <gtest/gtest.h>

#include <array>
#include <fstream>

#include "moefy/core/error.hpp"
#include "support/temp_dir.hpp"

namespace moefy {
namespace {

namespace fs = std::filesystem;
using test::TempDir;

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text));
}

TEST(InputFileTest, says_where_a_truncated_file_ends) {
  const TempDir folder;
  std::ofstream(folder / "short") << "12345";
  const InputFile file(folder / "short");
  std::array<std::byte, 4> out;

  file.read(1, out);
  EXPECT_EQ(static_cast<char>(out[0]), '2');
  try {
    file.read(3, out);
    FAIL() << "no error";
  } catch (const InputError& error) {
    EXPECT_NE(std::string(error.what()).find("short"), std::string::npos);
    EXPECT_NE(std::string(error.what()).find("byte 5"), std::string::npos);
  }
}

TEST(InputFileTest, refuses_folders_and_missing_files) {
  const TempDir folder;

  EXPECT_THROW(InputFile(folder.path()), InputError);
  EXPECT_THROW(InputFile(folder / "missing"), IoError);
}

TEST(WriteAtomicallyTest, replaces_the_whole_file_and_leaves_nothing_else) {
  const TempDir folder;
  write_file_atomically(folder / "f", "first");
  write_file_atomically(folder / "f", "second one");

  EXPECT_EQ(read_text_file(folder / "f"), "second one");
  EXPECT_EQ(std::distance(fs::directory_iterator(folder.path()), {}), 1);
}

TEST(WriteAtomicallyTest, keeps_the_old_file_if_it_fails) {
  const TempDir folder;
  fs::create_directory(folder / "taken");

  EXPECT_THROW(write_file_atomically(folder / "taken", "text"), IoError);
  EXPECT_THROW(write_file_atomically(folder / "no" / "such", "text"), IoError);
  EXPECT_EQ(std::distance(fs::directory_iterator(folder.path()), {}), 1);
}

TEST(OutputDirectoryTest, appears_only_with_commit) {
  const TempDir folder;
  {
    OutputDirectory abandoned(folder / "out", false);
    WritableFile(abandoned.staging() / "f").write(0, bytes_of("x"));
    EXPECT_FALSE(fs::exists(folder / "out"));
  }
  EXPECT_TRUE(fs::is_empty(folder.path()));

  OutputDirectory output(folder / "out", false);
  fs::create_directory(output.staging() / "sub");
  write_file_atomically(output.staging() / "sub" / "f", "done");
  output.commit();

  EXPECT_EQ(read_text_file(folder / "out" / "sub" / "f"), "done");
  EXPECT_EQ(std::distance(fs::directory_iterator(folder.path()), {}), 1);
}

TEST(OutputDirectoryTest, replaces_an_old_one_only_when_told_to) {
  const TempDir folder;
  fs::create_directory(folder / "out");
  write_file_atomically(folder / "out" / "old", "old");

  EXPECT_THROW(OutputDirectory(folder / "out", false), UsageError);
  OutputDirectory output(folder / "out", true);
  write_file_atomically(output.staging() / "new", "new");
  EXPECT_TRUE(fs::exists(folder / "out" / "old"));
  output.commit();

  EXPECT_FALSE(fs::exists(folder / "out" / "old"));
  EXPECT_TRUE(fs::exists(folder / "out" / "new"));
  EXPECT_EQ(std::distance(fs::directory_iterator(folder.path()), {}), 1);
}

TEST(FreeSpaceTest, names_what_is_needed) {
  const TempDir folder;

  require_free_space(folder / "not" / "there" / "yet", 1);
  try {
    require_free_space(folder.path(), std::uint64_t{1} << 60);
    FAIL() << "no error";
  } catch (const IoError& error) {
    EXPECT_NE(std::string(error.what()).find("1152921504606846976"), std::string::npos);
  }
}

}  // namespace
}  // namespace moefy
