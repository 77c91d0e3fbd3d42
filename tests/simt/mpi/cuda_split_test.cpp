// The whole of `split --backend cuda` on simulated devices.
#include <algorithm>
#include <fstream>
#include <sstream>

#include "moefy/core/error.hpp"
#include "moefy/core/text.hpp"
#include "moefy/jobs/split.hpp"
#include "moefy/store/expert_map.hpp"
#include "simt.hpp"
#include "support/mpi_main.hpp"
#include "support/temp_dir.hpp"
#include "support/tiny_checkpoint.hpp"

namespace moefy {
namespace {

using test::world;

std::string text_of(const std::filesystem::path& path) {
  std::ostringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}

/// The folder of rank 0, on every rank.
std::filesystem::path shared_folder(const test::TempDir& mine) {
  std::vector<std::byte> text = to_bytes(mine.path().string());
  world().broadcast(text);
  return to_text(text);
}

class CudaSplitTest : public testing::Test {
 protected:
  void SetUp() override {
    simt::set_device_count(world().size());
    folder_ = shared_folder(own_folder_);
    if (world().rank() == 0) {
      test::write_checkpoint(test::tiny_model("llama", {.layers = 5, .hidden = 24, .neurons = 60}),
                             folder_ / "model");
    }
    world().barrier();
  }
  void TearDown() override {
    simt::fail("");
    world().barrier();  // rank 0's folder goes with its test
  }

  /// Collective over `comm`.
  ExitCode split(Communicator& comm, const std::string& backend, const std::string& map) {
    SplitJobConfig config;
    config.model = folder_ / "model";
    config.output = folder_ / map;
    config.split.experts = 4;
    config.backend = backend;
    config.reproducible = true;
    LogConfig log_config;
    log_config.level = LogLevel::off;
    log_config.rank = comm.rank();
    log_config.file = folder_ / (map + ".log");
    Log log(log_config, comm.size());
    std::ostringstream out;
    JobContext context{.comm = comm,
                       .log = log,
                       .out = out,
                       .stop = {},
                       .progress = Progress::Style::quiet,
                       .architecture_file = "",
                       .command_line = ""};
    return run_split(config, context);
  }

  test::TempDir own_folder_;
  std::filesystem::path folder_;
};

TEST_F(CudaSplitTest, makes_the_same_map_on_any_number_of_ranks) {
  split(world(), "cuda", "ranks.h5");

  if (world().rank() != 0) return;
  const std::unique_ptr<Communicator> alone = make_self_communicator();
  split(*alone, "cuda", "alone.h5");
  EXPECT_EQ(text_of(folder_ / "ranks.h5"), text_of(folder_ / "alone.h5"));
}

TEST_F(CudaSplitTest, finds_the_labels_of_the_reference) {
  if (world().rank() != 0) return;
  const std::unique_ptr<Communicator> alone = make_self_communicator();
  split(*alone, "cuda", "cuda.h5");
  split(*alone, "reference", "reference.h5");

  const ExpertMap found = read_expert_map(folder_ / "cuda.h5");
  const ExpertMap expected = read_expert_map(folder_ / "reference.h5");

  ASSERT_EQ(found.layers.size(), expected.layers.size());
  for (std::size_t l = 0; l < found.layers.size(); ++l) {
    EXPECT_EQ(found.layers[l].duality_gap, 0);
    EXPECT_TRUE(std::ranges::equal(found.layers[l].partition.labels(),
                                   expected.layers[l].partition.labels()))
        << "layer " << l;
  }
}

TEST_F(CudaSplitTest, takes_the_devices_by_itself) {
  split(world(), "auto", "auto.h5");

  if (world().rank() != 0) return;
  const ExpertMap map = read_expert_map(folder_ / "auto.h5");
  EXPECT_NE(map.header.config.find("\"backend\":\"cuda\""), std::string::npos) << map.header.config;
}

TEST_F(CudaSplitTest, stays_on_the_cpu_unless_every_rank_has_a_device) {
  simt::set_device_count(world().rank() == world().size() - 1 ? 0 : 1);

  split(world(), "auto", "auto.h5");

  if (world().rank() != 0) return;
  const ExpertMap map = read_expert_map(folder_ / "auto.h5");
  EXPECT_NE(map.header.config.find("\"backend\":\"cpu\""), std::string::npos) << map.header.config;
}

TEST_F(CudaSplitTest, warns_when_ranks_share_a_device) {
  simt::set_device_count(1);

  split(world(), "cuda", "shared.h5");

  if (world().rank() != 0) return;
  const bool warned =
      text_of(folder_ / "shared.h5.log").find("more ranks than GPUs") != std::string::npos;
  EXPECT_EQ(warned, world().size() > 1);
}

TEST_F(CudaSplitTest, ends_on_all_ranks_when_a_device_is_missing) {
  simt::set_device_count(world().rank() == world().size() - 1 ? 0 : 1);

  EXPECT_THROW(split(world(), "cuda", "missing.h5"), DeviceError);

  EXPECT_FALSE(std::filesystem::exists(folder_ / "missing.h5"));
}

TEST_F(CudaSplitTest, ends_on_all_ranks_when_a_device_fails) {
  if (world().rank() == world().size() - 1) simt::fail("cudaStreamSynchronize", 3);

  EXPECT_THROW(split(world(), "cuda", "failed.h5"), Error);

  EXPECT_FALSE(std::filesystem::exists(folder_ / "failed.h5"));
}

}  // namespace
}  // namespace moefy
