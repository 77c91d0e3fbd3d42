#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "moefy/core/error.hpp"
#include "moefy/store/expert_map.hpp"
#include "support/sample_map.hpp"
#include "support/temp_dir.hpp"

namespace moefy {
namespace {

using testing::HasSubstr;

/// The message of the InputError, or what went wrong instead.
std::string error_of(std::span<const std::byte> bytes) {
  try {
    (void)parse_expert_map(bytes, "map.h5");
  } catch (const InputError& error) {
    return error.what();
  } catch (const std::exception& error) {
    return std::string("another error: ") + error.what();
  }
  return "read without an error";
}

std::vector<std::byte> small_map() {
  return expert_map_bytes(test::sample_map({.num_layers = 1, .num_neurons = 4, .num_experts = 2}));
}

TEST(DamagedMapTest, one_flipped_bit_at_any_byte_is_an_input_error) {
  auto bytes = small_map();
  testing::internal::CaptureStderr();

  for (std::size_t at = 0; at < bytes.size(); ++at) {
    const auto mask = static_cast<std::byte>(1 << (at % 8));
    bytes[at] ^= mask;
    ASSERT_THAT(error_of(bytes), testing::StartsWith("map.h5: ")) << "byte " << at;
    bytes[at] ^= mask;
  }

  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
  EXPECT_EQ(error_of(bytes), "read without an error");
}

TEST(DamagedMapTest, every_bit_of_the_user_block_counts) {
  auto bytes = small_map();

  for (std::size_t bit = 0; bit < 512 * 8; ++bit) {
    const auto mask = static_cast<std::byte>(1 << (bit % 8));
    bytes[bit / 8] ^= mask;
    ASSERT_THAT(error_of(bytes), testing::StartsWith("map.h5: ")) << "bit " << bit;
    bytes[bit / 8] ^= mask;
  }
}

TEST(DamagedMapTest, a_cut_at_any_length_is_an_input_error) {
  const auto bytes = small_map();

  for (std::size_t length = 0; length < bytes.size(); ++length) {
    ASSERT_THAT(error_of(std::span(bytes).first(length)), testing::StartsWith("map.h5: "))
        << "length " << length;
  }
}

TEST(DamagedMapTest, bytes_behind_the_end_are_an_input_error) {
  auto bytes = small_map();
  bytes.push_back(std::byte{0});

  EXPECT_THAT(error_of(bytes), HasSubstr("damaged"));
}

TEST(DamagedMapTest, another_file_is_refused_by_what_it_is_not) {
  const test::TempDir folder;
  std::ofstream(folder / "notes.txt") << "not a map, but long enough to look at";

  try {
    (void)read_expert_map(folder / "notes.txt");
    FAIL() << "read a text file as a map";
  } catch (const InputError& error) {
    EXPECT_THAT(error.what(), HasSubstr("notes.txt: not an expert map of moefy"));
  }
}

TEST(DamagedMapTest, an_empty_file_is_refused) {
  const test::TempDir folder;
  std::ofstream(folder / "empty.h5").close();

  EXPECT_THROW((void)read_expert_map(folder / "empty.h5"), InputError);
}

}  // namespace
}  // namespace moefy
