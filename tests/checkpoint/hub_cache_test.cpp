#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <optional>

#include "moefy/checkpoint/checkpoint.hpp"
#include "moefy/core/error.hpp"
#include "support/temp_dir.hpp"
#include "support/tiny_checkpoint.hpp"

namespace moefy {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::ThrowsMessage;

/// Sets or unsets a variable for one test.
class ScopedVariable {
 public:
  ScopedVariable(const char* name, const std::optional<std::string>& value) : name_(name) {
    if (const char* old = std::getenv(name)) old_ = old;
    set(value);
  }
  ~ScopedVariable() { set(old_); }
  ScopedVariable(const ScopedVariable&) = delete;
  ScopedVariable& operator=(const ScopedVariable&) = delete;

 private:
  void set(const std::optional<std::string>& value) const {
    if (value) {
      setenv(name_, value->c_str(), 1);
    } else {
      unsetenv(name_);
    }
  }
  const char* name_;
  std::optional<std::string> old_;
};

class HubCacheTest : public testing::Test {
 protected:
  std::filesystem::path add_model(const std::filesystem::path& cache, const std::string& folder,
                                  const std::string& hash) const {
    std::filesystem::create_directories(cache / folder / "refs");
    std::filesystem::create_directories(cache / folder / "snapshots" / hash);
    test::write_text(cache / folder / "refs" / "main", hash);
    return cache / folder / "snapshots" / hash;
  }

  test::TempDir dir_;
  ScopedVariable cache_{"HF_HUB_CACHE", std::nullopt};
  ScopedVariable home_{"HF_HOME", dir_.path().string()};
  ScopedVariable xdg_{"XDG_CACHE_HOME", std::nullopt};
};

TEST_F(HubCacheTest, takes_a_directory_as_it_is) {
  EXPECT_EQ(resolve_model(dir_.path().string()), dir_.path());
}

TEST_F(HubCacheTest, finds_the_snapshot_of_main) {
  const auto snapshot = add_model(dir_ / "hub", "models--org--name-1.5", "0a1b");

  EXPECT_EQ(resolve_model("org/name-1.5"), snapshot);
}

TEST_F(HubCacheTest, finds_models_without_organisation) {
  const auto snapshot = add_model(dir_ / "hub", "models--gpt2", "ff");

  EXPECT_EQ(resolve_model("gpt2"), snapshot);
}

TEST_F(HubCacheTest, prefers_the_variable_for_the_cache_itself) {
  const auto snapshot = add_model(dir_ / "elsewhere", "models--gpt2", "ff");
  const ScopedVariable cache("HF_HUB_CACHE", (dir_ / "elsewhere").string());

  EXPECT_EQ(resolve_model("gpt2"), snapshot);
}

TEST_F(HubCacheTest, looks_below_home_without_variables) {
  const ScopedVariable no_hf_home("HF_HOME", std::nullopt);
  const ScopedVariable home("HOME", dir_.path().string());
  const auto snapshot = add_model(dir_ / ".cache/huggingface/hub", "models--gpt2", "ff");

  EXPECT_EQ(resolve_model("gpt2"), snapshot);
}

TEST_F(HubCacheTest, says_how_to_download_and_what_is_there) {
  add_model(dir_ / "hub", "models--org--other", "0a1b");

  EXPECT_THAT([] { resolve_model("org/name"); },
              ThrowsMessage<UsageError>(AllOf(HasSubstr("hf download org/name"),
                                              HasSubstr("models in the cache: org/other"))));
}

TEST_F(HubCacheTest, refuses_a_snapshot_that_leaves_the_cache) {
  add_model(dir_ / "hub", "models--org--name", "0a1b");
  test::write_text(dir_ / "hub/models--org--name/refs/main", "../../..");

  EXPECT_THAT([] { resolve_model("org/name"); },
              ThrowsMessage<InputError>(HasSubstr("not the name of a snapshot")));
}

TEST_F(HubCacheTest, refuses_files_and_texts_that_are_no_names) {
  test::write_text(dir_ / "file", "");

  EXPECT_THAT([&] { resolve_model((dir_ / "file").string()); },
              ThrowsMessage<UsageError>(HasSubstr("this is a file")));
  for (const char* name : {"", "a/b/c", "../x", "a b", "/absent"})
    EXPECT_THAT([&] { resolve_model(name); },
                ThrowsMessage<UsageError>(HasSubstr("not the name of a model")));
}

}  // namespace
}  // namespace moefy
