// The whole of `split --backend cuda` on simulated devices.
#include <algorithm>
#include <fstream>
#include <limits>
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
    config.split = split_;
    config.feed = feed_;
    config.shard_rows = shard_rows_;
    config.backend = backend;
    config.share_devices = share_devices_;
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
  SplitConfig split_ = four_experts();
  std::string feed_ = "auto";
  std::int64_t shard_rows_ = 1;
  bool share_devices_ = false;

  static SplitConfig four_experts() {
    SplitConfig config;
    config.experts = 4;
    return config;
  }
};

TEST_F(CudaSplitTest, makes_the_same_map_on_any_number_of_ranks) {
  split(world(), "cuda", "ranks.h5");

  if (world().rank() != 0) return;
  const std::unique_ptr<Communicator> alone = make_self_communicator();
  split(*alone, "cuda", "alone.h5");
  EXPECT_EQ(text_of(folder_ / "ranks.h5"), text_of(folder_ / "alone.h5"));
}

TEST_F(CudaSplitTest, makes_the_same_map_of_rows_that_ranks_share) {
  if (world().rank() == 0) {
    test::write_checkpoint(test::tiny_model("llama", {.layers = 1, .hidden = 24, .neurons = 600}),
                           folder_ / "model");
  }
  world().barrier();
  for (const char* feed : {"local", "coordinator"}) {
    feed_ = feed;
    for (shard_rows_ = 2; shard_rows_ <= 3; ++shard_rows_)
      split(world(), "cuda", std::string(feed) + std::to_string(shard_rows_) + ".h5");
  }
  simt::set_device_count(1);
  share_devices_ = true;
  split(world(), "cuda", "messages.h5");

  if (world().rank() != 0) return;
  const std::unique_ptr<Communicator> alone = make_self_communicator();
  split(*alone, "cuda", "alone.h5");
  for (const char* map :
       {"local2.h5", "local3.h5", "coordinator2.h5", "coordinator3.h5", "messages.h5"})
    EXPECT_EQ(text_of(folder_ / map), text_of(folder_ / "alone.h5")) << map;
  if (world().size() == 1) return;
  EXPECT_NE(text_of(folder_ / "local2.h5.log").find("; sums over NCCL 2.27.3"), std::string::npos);
  EXPECT_NE(
      text_of(folder_ / "messages.h5.log").find("; sums as host messages (ranks share a GPU)"),
      std::string::npos);
}

TEST_F(CudaSplitTest, ends_on_all_ranks_when_sums_cannot_be_added_up) {
  if (world().size() == 1) return;
  if (world().rank() == 0) {
    test::write_checkpoint(test::tiny_model("llama", {.layers = 2, .hidden = 24, .neurons = 600}),
                           folder_ / "model");
  }
  world().barrier();
  shard_rows_ = world().size();
  for (int failing = 0; failing < world().size(); ++failing) {
    for (const char* call : {"ncclReduce", "ncclCommGetAsyncError"}) {
      SCOPED_TRACE(testing::Message() << call << " of rank " << failing);
      constexpr int kAfterTheStart = 9;
      if (world().rank() == failing) simt::fail(call, kAfterTheStart);
      std::string message;
      try {
        split(world(), "cuda", "failed.h5");
      } catch (const CommError& error) {
        message = error.what();
      }
      EXPECT_NE(message.find("NCCL, adding up sums: remote process"), std::string::npos) << message;
      EXPECT_NE(message.find("[rank " + std::to_string(failing) + " "), std::string::npos)
          << message;
      EXPECT_FALSE(std::filesystem::exists(folder_ / "failed.h5"));
      simt::fail("");
      world().barrier();
    }
  }
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

TEST_F(CudaSplitTest, makes_the_same_map_of_layers_that_rank_0_sends) {
  feed_ = "coordinator";
  split(world(), "cuda", "nccl.h5");
  simt::set_device_count(1);
  share_devices_ = true;  // then host messages
  split(world(), "cuda", "host.h5");

  if (world().rank() != 0) return;
  feed_ = "local";
  const std::unique_ptr<Communicator> alone = make_self_communicator();
  split(*alone, "cuda", "alone.h5");
  EXPECT_EQ(text_of(folder_ / "nccl.h5"), text_of(folder_ / "alone.h5"));
  EXPECT_EQ(text_of(folder_ / "host.h5"), text_of(folder_ / "alone.h5"));
  if (world().size() == 1) return;
  EXPECT_NE(text_of(folder_ / "nccl.h5.log").find("layers: sent by rank 0 over NCCL 2.27.3"),
            std::string::npos);
  EXPECT_NE(text_of(folder_ / "host.h5.log").find("as host messages (ranks share a GPU)"),
            std::string::npos);
}

TEST_F(CudaSplitTest, takes_every_matrix_as_it_lies_in_the_file) {
  if (world().rank() != 0) return;
  const std::unique_ptr<Communicator> alone = make_self_communicator();
  for (const char* weights : {"up", "down", "concat"}) {
    for (const std::int64_t shared : {0, 1}) {
      SCOPED_TRACE(testing::Message() << weights << ", " << shared << " shared");
      split_ = {};
      split_.experts = 4 - shared;
      split_.shared = shared;
      split_.weights = weights;
      const std::string name = weights + std::to_string(shared);
      split(*alone, "cuda", name + "-cuda.h5");
      split(*alone, "reference", name + "-reference.h5");
      const ExpertMap found = read_expert_map(folder_ / (name + "-cuda.h5"));
      const ExpertMap expected = read_expert_map(folder_ / (name + "-reference.h5"));
      for (std::size_t l = 0; l < found.layers.size(); ++l) {
        EXPECT_TRUE(std::ranges::equal(found.layers[l].partition.labels(),
                                       expected.layers[l].partition.labels()));
        EXPECT_TRUE(std::ranges::equal(found.layers[l].router.weight.values(),
                                       expected.layers[l].router.weight.values()));
        EXPECT_EQ(found.layers[l].fingerprint, expected.layers[l].fingerprint);
      }
    }
  }
}

TEST_F(CudaSplitTest, names_the_bad_weight_that_the_device_found) {
  if (world().rank() != 0) return;
  test::TinyModel model = test::tiny_model("llama", {.layers = 5, .hidden = 24, .neurons = 60});
  for (test::TinyTensor& tensor : model.tensors) {
    if (tensor.name != "model.layers.3.mlp.gate_proj.weight") continue;
    const std::vector<float> bad(1, std::numeric_limits<float>::quiet_NaN());
    narrow(tensor.dtype, bad,
           std::span(tensor.bytes)
               .subspan((7 * 24 + 5) * size_of(tensor.dtype), size_of(tensor.dtype)));
  }
  test::write_checkpoint(model, folder_ / "model");
  const std::unique_ptr<Communicator> alone = make_self_communicator();
  const auto message_of = [&](const std::string& backend) -> std::string {
    try {
      split(*alone, backend, "bad-" + backend + ".h5");
    } catch (const InputError& error) {
      return error.what();
    }
    return "no error";
  };

  const std::string message = message_of("cuda");

  EXPECT_NE(message.find("holds nan at row 7, column 5"), std::string::npos) << message;
  EXPECT_EQ(message, message_of("reference"));
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
  share_devices_ = true;

  split(world(), "cuda", "shared.h5");

  if (world().rank() != 0) return;
  const std::string text = std::to_string(world().size()) + " ranks share 1 GPU on ";
  EXPECT_EQ(text_of(folder_ / "shared.h5.log").find(text) != std::string::npos, world().size() > 1);
}

TEST_F(CudaSplitTest, lets_no_ranks_share_a_device_unless_told_to) {
  if (world().size() == 1) return;
  simt::set_device_count(1);
  const std::string counts = std::to_string(world().size()) + " ranks, 1 GPU;";

  for (const char* backend : {"cuda", "auto"}) {
    try {
      split(world(), backend, "refused.h5");
      ADD_FAILURE() << backend << ": no error";
    } catch (const UsageError& error) {
      const std::string message = error.what();
      EXPECT_NE(message.find(counts), std::string::npos) << message;
      EXPECT_NE(message.find("--share-devices"), std::string::npos) << message;
    }
  }

  EXPECT_FALSE(std::filesystem::exists(folder_ / "refused.h5"));
}

TEST_F(CudaSplitTest, ends_on_all_ranks_when_a_device_is_missing) {
  simt::set_device_count(world().rank() == world().size() - 1 ? 0 : 1);
  share_devices_ = true;

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
