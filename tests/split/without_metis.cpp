#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "moefy/core/error.hpp"
#include "neuron_graph.hpp"

namespace moefy {
namespace {

std::string answer_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const UsageError& error) {
    return error.what();
  }
  return "";
}

TEST(WithoutMetisTest, says_what_is_missing_and_how_to_get_it) {
  EXPECT_FALSE(metis_available());
  for (const std::string& answer :
       {answer_of([] { require_metis(); }), answer_of([] { partition_graph({}, 2, 0); })}) {
    EXPECT_THAT(answer, testing::HasSubstr("built without METIS"));
    EXPECT_THAT(answer, testing::HasSubstr("-DMOEFY_METIS=ON"));
  }
}

}  // namespace
}  // namespace moefy
