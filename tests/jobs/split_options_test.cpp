#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "moefy/jobs/split.hpp"

namespace moefy {
namespace {

TEST(SplitOptionsTest, a_start_on_the_gpu_needs_a_backend_there) {
  SplitJobConfig config;
  config.split.kmeans.start = StartMethod::faiss_gpu;
  for (const char* backend : {"cpu", "reference"}) {
    config.backend = backend;
    EXPECT_THAT(start_obstacle(config),
                testing::AllOf(testing::HasSubstr("--backend cuda"), testing::HasSubstr(backend)));
  }
  for (const char* backend : {"auto", "cuda"}) {
    config.backend = backend;
    EXPECT_EQ(start_obstacle(config), "");
  }
}

TEST(SplitOptionsTest, other_starts_go_with_every_backend) {
  SplitJobConfig config;
  config.backend = "cpu";
  for (const std::string& name : start_names()) {
    config.split.kmeans.start = start_method(name);
    EXPECT_EQ(start_obstacle(config).empty(), name != "faiss-gpu") << name;
  }
}

TEST(SplitOptionsTest, the_map_records_the_start) {
  SplitJobConfig config;
  for (const std::string& name : start_names()) {
    config.split.kmeans.start = start_method(name);
    EXPECT_THAT(result_options_json(config), testing::HasSubstr("\"init\":\"" + name + "\""));
  }
}

}  // namespace
}  // namespace moefy
