#include "moefy/balance/start_method.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "moefy/balance/balanced_kmeans.hpp"
#include "moefy/core/error.hpp"

namespace moefy {
namespace {

TEST(StartMethodTest, reads_every_name_it_writes) {
  for (const std::string& name : start_names()) EXPECT_EQ(to_string(start_method(name)), name);
}

TEST(StartMethodTest, names_the_valid_ones_for_an_unknown_one) {
  EXPECT_FALSE(find_start_method("faiss_gpu").has_value());
  try {
    start_method("faiss_gpu");
    FAIL() << "no error";
  } catch (const UsageError& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("faiss-gpu"));
  }
}

TEST(StartMethodTest, faiss_gpu_needs_a_backend_on_a_gpu) {
  const std::unique_ptr<Backend> backend = make_reference_backend(1);
  Matrix<float> rows(8, 2);
  for (std::size_t i = 0; i < rows.values().size(); ++i) rows.values()[i] = static_cast<float>(i);
  BalancedKMeansConfig config;
  config.start = StartMethod::faiss_gpu;
  BalancedKMeans clustering(*backend);

  EXPECT_FALSE(backend->device().has_value());
  EXPECT_THROW(clustering.run(rows.view(), Capacities::balanced(8, 2), config, 0), UsageError);
}

}  // namespace
}  // namespace moefy
