#include "moefy/jobs/plan.hpp"

#include <gtest/gtest.h>

#include "moefy/jobs/model_source.hpp"
#include "support/temp_dir.hpp"
#include "support/tiny_checkpoint.hpp"

namespace moefy::test {
namespace {

TEST(SplitPlanTest, counts_what_faiss_own_index_takes_of_a_gpu) {
  const TempDir dir;
  write_checkpoint(tiny_model("llama", {.hidden = 16, .neurons = 48}), dir / "model");
  const ModelSource source = open_model((dir / "model").string(), "");
  SplitConfig config;
  config.experts = 4;

  const SplitPlan usual = make_split_plan(source.layers, config, 1, 1);
  config.kmeans.start = StartMethod::faiss_gpu;
  const SplitPlan with_index = make_split_plan(source.layers, config, 1, 1);

  EXPECT_EQ(with_index.peak_device_memory,
            usual.peak_device_memory + kFaissGpuBytes + sizeof(float) * 4 * 16);
  EXPECT_EQ(with_index.peak_memory, usual.peak_memory);
}

}  // namespace
}  // namespace moefy::test
