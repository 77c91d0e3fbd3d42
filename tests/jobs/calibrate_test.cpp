#include "moefy/jobs/calibrate.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "moefy/backend/backend.hpp"
#include "moefy/checkpoint/safetensors_file.hpp"
#include "moefy/convert/convert.hpp"
#include "moefy/core/error.hpp"
#include "moefy/core/random.hpp"
#include "moefy/jobs/model_source.hpp"
#include "moefy/store/expert_map.hpp"
#include "support/temp_dir.hpp"
#include "support/tiny_checkpoint.hpp"

namespace moefy::test {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr std::size_t kTokens = 100;
constexpr std::size_t kWidth = 16;

Matrix<float> random_tokens(std::uint64_t seed) {
  Matrix<float> tokens(kTokens, kWidth);
  RandomStream stream(seed, 0, RandomPurpose::verification);
  for (float& value : tokens.values()) value = stream.next_normal();
  return tokens;
}

class CalibrateTest : public testing::Test {
 protected:
  CalibrateTest() { write_checkpoint(tiny_model("llama", {.dtype = DType::bf16}), dir_ / "model"); }

  CalibrateConfig config(const char* output = "map.h5") const {
    CalibrateConfig config;
    config.model = (dir_ / "model").string();
    config.output = dir_ / output;
    config.granularity = 8;
    config.active = 0.5;
    config.text = R"({"digest":"abc"})";
    return config;
  }

  /// One layer as the Python side does it; returns its outputs.
  static Matrix<float> do_layer(Calibrator& calibrator, std::size_t layer) {
    const Matrix<float> inputs = random_tokens(layer);
    const Matrix<float> stream = random_tokens(100 + layer);
    Matrix<float> out(kTokens, kWidth);
    calibrator.begin(layer);
    if (calibrator.finished(layer)) {
      calibrator.apply(inputs.view(), out.view());
      return out;
    }
    // In two pieces, as sequences come.
    const std::size_t half = kTokens / 2 * kWidth;
    const float* rows = inputs.values().data();
    const float* residual = stream.values().data();
    calibrator.add({rows, kTokens / 2, kWidth}, {residual, kTokens / 2, kWidth});
    calibrator.add({rows + half, kTokens / 2, kWidth}, {residual + half, kTokens / 2, kWidth});
    calibrator.fit();
    calibrator.apply_to_added(out.view());
    return out;
  }

  static void do_all(Calibrator& calibrator) {
    for (std::size_t layer = 0; layer < calibrator.num_layers(); ++layer)
      do_layer(calibrator, layer);
    calibrator.finish();
  }

  TempDir dir_;
};

TEST_F(CalibrateTest, makes_a_map_and_refitted_weights_that_belong_together) {
  {
    Calibrator calibrator(config());
    EXPECT_EQ(calibrator.counts().experts, 7);
    EXPECT_EQ(calibrator.counts().shared, 1);
    EXPECT_EQ(calibrator.counts().top_k, 3);
    do_all(calibrator);
    EXPECT_TRUE(calibrator.already_done());
  }
  const ExpertMap map = read_expert_map(dir_ / "map.h5");
  ASSERT_EQ(map.layers.size(), 2u);
  EXPECT_EQ(map.header.top_k, 3);
  EXPECT_EQ(map.layers[0].method, "routed");
  EXPECT_EQ(map.layers[0].router.kind, "ridge");
  EXPECT_EQ(map.layers[0].partition.num_experts(), 7u);
  const auto refit = open_refit(map, dir_ / "map.h5");
  EXPECT_EQ(refit->tensors().size(), 2u);
  EXPECT_FALSE(fs::exists(dir_ / "map.h5.journal"));
  EXPECT_FALSE(fs::exists(dir_ / "map.h5.lock"));
  // Of this checkpoint: convert would take it.
  const ModelSource source = open_model((dir_ / "model").string(), "");
  EXPECT_NO_THROW(check_map_belongs(source.checkpoint, map, "map.h5"));
}

TEST_F(CalibrateTest, a_resumed_run_ends_in_the_same_bytes) {
  {
    Calibrator calibrator(config("whole.h5"));
    do_all(calibrator);
  }
  Matrix<float> fresh;
  {
    Calibrator calibrator(config());
    fresh = do_layer(calibrator, 0);
  }
  {
    Calibrator calibrator(config());
    EXPECT_TRUE(calibrator.finished(0));
    EXPECT_FALSE(calibrator.finished(1));
    const Matrix<float> again = do_layer(calibrator, 0);
    for (std::size_t i = 0; i < fresh.values().size(); ++i)
      ASSERT_NEAR(fresh.values()[i], again.values()[i], 1e-6);
    do_layer(calibrator, 1);
    calibrator.finish();
  }
  const ExpertMap whole = read_expert_map(dir_ / "whole.h5");
  const ExpertMap resumed = read_expert_map(dir_ / "map.h5");
  EXPECT_EQ(whole.header.refit_fingerprint, resumed.header.refit_fingerprint);
  for (std::size_t l = 0; l < 2; ++l) {
    EXPECT_EQ(whole.layers[l].partition, resumed.layers[l].partition);
    EXPECT_TRUE(std::ranges::equal(whole.layers[l].router.weight.values(),
                                   resumed.layers[l].router.weight.values()));
    EXPECT_EQ(whole.layers[l].metrics, resumed.layers[l].metrics);
  }
}

TEST_F(CalibrateTest, an_equal_output_is_done_and_another_is_in_the_way) {
  {
    Calibrator calibrator(config());
    do_all(calibrator);
  }
  EXPECT_TRUE(Calibrator(config()).already_done());
  CalibrateConfig other = config();
  other.text = R"({"digest":"def"})";
  try {
    const Calibrator calibrator(other);
    FAIL() << "another text must be refused";
  } catch (const UsageError& error) {
    EXPECT_THAT(error.what(), HasSubstr("text"));
  }
  other.force = true;
  EXPECT_FALSE(Calibrator(other).already_done());
}

TEST_F(CalibrateTest, a_journal_of_other_options_is_refused) {
  {
    Calibrator calibrator(config());
    do_layer(calibrator, 0);
  }
  CalibrateConfig other = config();
  other.seed = 7;
  EXPECT_THROW(Calibrator{other}, UsageError);
}

TEST_F(CalibrateTest, keeps_what_the_model_wrote_for_the_next_run) {
  const std::vector<std::int64_t> ids = {7, 0, std::int64_t{1} << 40};
  {
    Calibrator calibrator(config());
    EXPECT_TRUE(calibrator.sampled().empty());
    EXPECT_FALSE(fs::exists(dir_ / "map.h5.journal"));
    calibrator.keep_sampled(ids);
    EXPECT_EQ(calibrator.sampled(), ids);
  }
  Calibrator calibrator(config());
  EXPECT_EQ(calibrator.sampled(), ids);
  EXPECT_FALSE(calibrator.finished(0));
  do_all(calibrator);
  EXPECT_FALSE(fs::exists(dir_ / "map.h5.journal"));
}

TEST_F(CalibrateTest, a_journal_without_a_layer_gives_way_to_other_options) {
  const std::vector<std::int64_t> ids = {7};
  CalibrateConfig other = config();
  other.seed = 7;
  {
    Calibrator calibrator(config());
    calibrator.keep_sampled(ids);
  }
  {
    Calibrator calibrator(other);
    EXPECT_TRUE(calibrator.sampled().empty());
    calibrator.keep_sampled(ids);
    do_layer(calibrator, 0);
  }
  EXPECT_THROW(Calibrator{config()}, UsageError);
  EXPECT_EQ(Calibrator{other}.sampled(), ids);
}

TEST_F(CalibrateTest, tokens_that_are_not_finite_are_refused_by_layer) {
  Calibrator calibrator(config());
  calibrator.begin(1);
  Matrix<float> inputs = random_tokens(1);
  const Matrix<float> stream = random_tokens(2);
  inputs.row(7)[3] = std::numeric_limits<float>::quiet_NaN();
  try {
    calibrator.add(inputs.view(), stream.view());
    FAIL() << "NaN must be refused";
  } catch (const InputError& error) {
    EXPECT_THAT(error.what(), HasSubstr("layer 1"));
    EXPECT_THAT(error.what(), HasSubstr("token 7, column 3"));
  }
}

TEST_F(CalibrateTest, without_a_refit_only_the_map_is_made) {
  CalibrateConfig plain = config();
  plain.refit = 0;
  {
    Calibrator calibrator(plain);
    do_all(calibrator);
  }
  const ExpertMap map = read_expert_map(dir_ / "map.h5");
  EXPECT_TRUE(map.header.refit_file.empty());
  EXPECT_THROW(open_refit(map, dir_ / "map.h5"), UsageError);
}

TEST_F(CalibrateTest, a_refit_file_of_another_run_is_refused) {
  {
    Calibrator first(config("first.h5"));
    do_all(first);
  }
  CalibrateConfig other = config("second.h5");
  other.seed = 3;
  other.active = 0.25;
  {
    Calibrator second(other);
    do_all(second);
  }
  fs::copy_file(dir_ / "second.refit.safetensors", dir_ / "first.refit.safetensors",
                fs::copy_options::overwrite_existing);
  const ExpertMap map = read_expert_map(dir_ / "first.h5");
  EXPECT_THROW(open_refit(map, dir_ / "first.h5"), InputError);
  fs::remove(dir_ / "first.refit.safetensors");
  EXPECT_THROW(open_refit(map, dir_ / "first.h5"), InputError);
}

/// What of a map a backend decides.
void expect_nearly_equal(const ExpertMap& expected, const ExpertMap& found) {
  ASSERT_EQ(expected.layers.size(), found.layers.size());
  for (std::size_t l = 0; l < expected.layers.size(); ++l) {
    SCOPED_TRACE(testing::Message() << "layer " << l);
    EXPECT_EQ(found.layers[l].partition, expected.layers[l].partition);
    const auto weights = expected.layers[l].router.weight.values();
    const auto other = found.layers[l].router.weight.values();
    ASSERT_EQ(weights.size(), other.size());
    // Stored in bf16: a rounding of the fit may become one of eight bits.
    for (std::size_t e = 0; e < weights.size(); ++e)
      ASSERT_NEAR(other[e], weights[e], 1.0 / 128 * std::abs(weights[e]) + 1e-6) << "weight " << e;
    const auto& metrics = expected.layers[l].metrics;
    ASSERT_EQ(metrics.size(), found.layers[l].metrics.size());
    for (std::size_t m = 0; m < metrics.size(); ++m) {
      EXPECT_EQ(found.layers[l].metrics[m].first, metrics[m].first);
      EXPECT_NEAR(found.layers[l].metrics[m].second, metrics[m].second,
                  1e-3 * std::abs(metrics[m].second))
          << metrics[m].first;
    }
  }
}

/// Who fits, as `--device` of the command says it.
class CalibrateBackendTest : public CalibrateTest, public testing::WithParamInterface<const char*> {
 protected:
  void SetUp() override {
    if (GetParam() == std::string("cuda") && cuda_device_count() == 0)
      GTEST_SKIP() << "no NVIDIA GPU here";
  }
  ExpertMap map_of(const std::string& backend) {
    CalibrateConfig chosen = config((backend + ".h5").c_str());
    chosen.backend = backend;
    Calibrator calibrator(chosen);
    EXPECT_THAT(calibrator.backend_name(), testing::StartsWith(backend));
    do_all(calibrator);
    return read_expert_map(chosen.output);
  }
};

TEST_P(CalibrateBackendTest, fits_what_the_reference_fits) {
  const ExpertMap expected = map_of("reference");

  const ExpertMap found = map_of(GetParam());

  expect_nearly_equal(expected, found);
  EXPECT_THAT(found.header.config, HasSubstr(std::string(R"("backend":")") + GetParam() + '"'));
}

INSTANTIATE_TEST_SUITE_P(Backends, CalibrateBackendTest, testing::Values("cpu", "cuda"),
                         [](const auto& backend) { return std::string(backend.param); });

TEST_F(CalibrateTest, another_backend_does_not_go_on_with_a_journal) {
  {
    Calibrator calibrator(config());
    do_layer(calibrator, 0);
  }
  CalibrateConfig other = config();
  other.backend = "reference";
  try {
    const Calibrator calibrator(other);
    FAIL() << "another backend must be refused";
  } catch (const UsageError& error) {
    EXPECT_THAT(error.what(), HasSubstr("backend"));
  }
}

TEST_F(CalibrateTest, a_gpu_that_is_not_there_leaves_nothing) {
  CalibrateConfig far = config();
  far.backend = "cuda";
  far.device = 99;
  try {
    const Calibrator calibrator(far);
    FAIL() << "no machine has so many";
  } catch (const DeviceError& error) {
    EXPECT_THAT(error.what(), HasSubstr(cuda_device_count() == 0 ? "no NVIDIA GPU can be used"
                                                                 : "device 99 is not there"));
  } catch (const UsageError& error) {
    EXPECT_FALSE(cuda_is_built());
    EXPECT_THAT(error.what(), HasSubstr("built without CUDA"));
  }
  EXPECT_FALSE(fs::exists(dir_ / "map.h5.lock"));
  EXPECT_FALSE(fs::exists(dir_ / "map.h5.journal"));
}

TEST_F(CalibrateTest, a_full_gpu_keeps_the_finished_layers) {
  if (cuda_device_count() == 0) GTEST_SKIP() << "no NVIDIA GPU here";
  CalibrateConfig chosen = config();
  chosen.backend = "cuda";
  {
    Calibrator calibrator(chosen);
    do_layer(calibrator, 0);
  }
  {
    struct Limit {
      Limit() { limit_cuda_memory(1024); }
      ~Limit() { limit_cuda_memory(0); }
    };
    const Limit limit;
    Calibrator calibrator(chosen);
    calibrator.begin(1);
    const Matrix<float> tokens = random_tokens(1);
    calibrator.add(tokens.view(), tokens.view());
    EXPECT_THROW(calibrator.fit(), DeviceError);
  }
  Calibrator again(chosen);
  EXPECT_TRUE(again.finished(0));
  EXPECT_FALSE(again.finished(1));
}

TEST_F(CalibrateTest, every_problem_of_the_options_is_told_at_once) {
  CalibrateConfig bad = config();
  bad.granularity = 1;
  bad.active = 0;
  bad.refit = -1;
  bad.backend = "gpu";
  try {
    const Calibrator calibrator(bad);
    FAIL() << "bad options must be refused";
  } catch (const UsageError& error) {
    for (const char* option : {"--granularity", "--active", "--refit", "--backend"})
      EXPECT_THAT(error.what(), HasSubstr(option));
  }
}

TEST_F(CalibrateTest, who_fits_is_not_left_open) {
  CalibrateConfig open = config();
  open.backend = "auto";
  EXPECT_THAT(open.validate(), ElementsAre(HasSubstr("'auto'")));
}

TEST(ExpertCountsTest, shared_experts_are_chosen_by_the_active_share) {
  const auto is = [](const ExpertCounts& counts, std::int64_t experts, std::int64_t shared,
                     std::int64_t top_k) {
    EXPECT_EQ(counts.experts, experts);
    EXPECT_EQ(counts.shared, shared);
    EXPECT_EQ(counts.top_k, top_k);
  };
  is(choose_expert_counts(32, 0.5, -1), 28, 4, 12);
  is(choose_expert_counts(32, 0.75, -1), 24, 8, 16);
  is(choose_expert_counts(32, 0.25, -1), 28, 4, 4);
  is(choose_expert_counts(16, 0.5, 0), 16, 0, 8);
  EXPECT_THROW(choose_expert_counts(32, 0.5, 16), UsageError);
  EXPECT_THROW(choose_expert_counts(4, 0.25, -1), UsageError);
}

}  // namespace
}  // namespace moefy::test
