// Sums that simulated NCCL adds up between simulated devices: what the leader gets, and how a rank
// leaves one that cannot be completed.
#include <algorithm>
#include <limits>
#include <vector>

#include "cuda/runtime.hpp"
#include "moefy/backend/backend.hpp"
#include "moefy/comm/device_reducer.hpp"
#include "moefy/comm/waiting.hpp"
#include "simt.hpp"
#include "support/mpi_main.hpp"

namespace moefy {
namespace {

using test::world;

/// What a rank adds: all bits of an integer count, and sums may wrap.
std::uint64_t value_of(int rank, std::size_t i) {
  return (static_cast<std::uint64_t>(rank) + 3) * 0x9e3779b97f4a7c15U * (i + 1);
}

/// The ranks of another communicator, in less of a hurry to wait for each other.
class Impatient final : public Communicator {
 public:
  explicit Impatient(Communicator& comm) : comm_(comm) {}
  int rank() const override { return comm_.rank(); }
  int size() const override { return comm_.size(); }
  void post(int target, int tag, std::vector<std::byte> bytes) override {
    comm_.post(target, tag, std::move(bytes));
  }
  std::optional<Message> poll() override { return comm_.poll(); }
  std::size_t receive_into(int source, std::span<std::byte> target) override {
    return comm_.receive_into(source, target);
  }
  std::size_t send_from(int target, std::span<const std::byte> bytes) override {
    return comm_.send_from(target, bytes);
  }
  bool bulk_done(std::size_t handle) override { return comm_.bulk_done(handle); }
  void flush() override { comm_.flush(); }
  void barrier() override { comm_.barrier(); }
  void broadcast(std::vector<std::byte>& bytes, int root) override { comm_.broadcast(bytes, root); }
  std::vector<std::vector<std::byte>> gather(std::span<const std::byte> bytes, int root) override {
    return comm_.gather(bytes, root);
  }
  std::unique_ptr<Communicator> split(int color) override { return comm_.split(color); }
  void abort(ExitCode code, const std::string& message) override { comm_.abort(code, message); }
  std::chrono::milliseconds timeout() const override { return std::chrono::milliseconds(50); }

 private:
  Communicator& comm_;
};

class NcclReducerTest : public testing::Test {
 protected:
  void SetUp() override {
    simt::set_device_count(world().size());
    backend_ = make_cuda_backend(world().rank(), 1);
    memory_ = backend_->make_transfers();
    values_ = allocate(10'000);
    ASSERT_EQ(nccl_obstacle(world()), "");
  }
  void TearDown() override {
    simt::fail("");
    world().barrier();
  }

  std::span<std::int64_t> allocate(std::size_t count) {
    const auto bytes = memory_->allocate(count * sizeof(std::int64_t));
    return {reinterpret_cast<std::int64_t*>(bytes.data()), count};
  }
  static bool leads() { return world().rank() == 0; }
  static bool is_last() { return world().rank() == world().size() - 1; }

  static void put(std::span<std::int64_t> device) {
    std::vector<std::int64_t> values(device.size());
    for (std::size_t i = 0; i < values.size(); ++i)
      values[i] = static_cast<std::int64_t>(value_of(world().rank(), i));
    cuda::Stream stream;
    stream.upload(std::span<const std::int64_t>(values), device.data());
    stream.wait();
  }
  /// Whether `values` are what the ranks [first, end) add up to.
  static bool are_totals(std::span<const std::int64_t> device, int first, int end) {
    cuda::Stream stream;
    const auto values = stream.download<std::int64_t>(device.data(), device.size());
    stream.wait();
    for (std::size_t i = 0; i < values.size(); ++i) {
      std::uint64_t total = 0;
      for (int rank = first; rank < end; ++rank) total += value_of(rank, i);
      if (values[i] != static_cast<std::int64_t>(total)) return false;
    }
    return true;
  }
  static std::string failure_of(const std::function<void()>& action) {
    try {
      action();
    } catch (const CommError& error) {
      return error.what();
    }
    return "no CommError";
  }

  std::unique_ptr<Backend> backend_;
  std::unique_ptr<DeviceTransfers> memory_;
  std::span<std::int64_t> values_;
};

TEST_F(NcclReducerTest, adds_up_integers_on_the_leader) {
  const auto reducer = make_nccl_reducer(world(), *backend_);
  EXPECT_EQ(reducer->name(), "NCCL 2.27.3");
  for (const std::size_t count : {std::size_t{1}, std::size_t{33}, values_.size()}) {
    const auto values = values_.first(count);
    put(values);
    reducer->begin(values);
    reducer->wait();
    EXPECT_TRUE(are_totals(values, leads() ? 0 : world().rank(),
                           leads() ? world().size() : world().rank() + 1))
        << count;
  }
  reducer->finalize();
}

TEST_F(NcclReducerTest, every_group_adds_up_its_own) {
  constexpr int kGroupSize = 2;
  const auto group = world().split(world().rank() / kGroupSize);
  const auto reducer = make_nccl_reducer(*group, *backend_);
  const int first = world().rank() / kGroupSize * kGroupSize;
  for (int round = 0; round < 3; ++round) {
    put(values_);
    reducer->begin(values_);
    reducer->wait();
    if (group->rank() == 0) {
      EXPECT_TRUE(are_totals(values_, first, first + group->size()));
    }
  }
  reducer->finalize();
}

TEST_F(NcclReducerTest, ends_on_all_ranks_when_the_start_or_the_end_fails) {
  for (const char* call : {"ncclGetUniqueId", "ncclCommInitRankConfig", "ncclCommGetAsyncError"}) {
    SCOPED_TRACE(call);
    if (call == std::string("ncclGetUniqueId") || is_last()) simt::fail(call);
    EXPECT_THROW(make_nccl_reducer(world(), *backend_), CommError);
    simt::fail("");
  }
  for (const char* call : {"ncclCommFinalize", "ncclCommDestroy"}) {
    SCOPED_TRACE(call);
    const auto reducer = make_nccl_reducer(world(), *backend_);
    if (is_last()) simt::fail(call);
    EXPECT_THROW(reducer->finalize(), CommError);
    simt::fail("");
  }
}

TEST_F(NcclReducerTest, a_rank_that_cannot_begin_leaves_the_others_until_they_are_stopped) {
  if (world().size() == 1) return;
  const auto reducer = make_nccl_reducer(world(), *backend_);
  std::stop_source stop;
  reducer->stop_with(stop.get_token());
  if (is_last()) {
    simt::fail("ncclReduce");
    EXPECT_EQ(failure_of([&] { reducer->begin(values_); }),
              "NCCL, adding up sums: remote process exited or there was a network error");
  } else {
    reducer->begin(values_);
    EXPECT_FALSE(reducer->done());
  }
  world().barrier();
  if (!is_last()) {
    stop.request_stop();
    EXPECT_THROW(reducer->wait(), Interrupted);
  }
  // What is under way goes with the reducer.
}

TEST_F(NcclReducerTest, reports_errors_that_come_later) {
  if (world().size() == 1) return;
  const auto reducer = make_nccl_reducer(world(), *backend_);
  if (leads()) {
    reducer->begin(values_);  // nobody else does
    simt::fail("ncclCommGetAsyncError");
    EXPECT_EQ(failure_of([&] { reducer->wait(); }),
              "NCCL, adding up sums: remote process exited or there was a network error");
  }
  world().barrier();
}

TEST_F(NcclReducerTest, reports_a_device_that_fails_meanwhile) {
  const auto reducer = make_nccl_reducer(world(), *backend_);
  reducer->begin(values_);
  if (is_last()) {
    simt::fail("cudaEventQuery");
    EXPECT_THROW(reducer->wait(), DeviceError);
  }
  world().barrier();
}

TEST_F(NcclReducerTest, does_not_wait_for_ever) {
  if (world().size() == 1) return;
  Impatient comm(world());
  const auto reducer = make_nccl_reducer(comm, *backend_);
  if (leads()) {
    reducer->begin(values_);  // nobody else does
    EXPECT_EQ(
        failure_of([&] { reducer->wait(); }),
        "NCCL, adding up sums: no answer within 0.05 s (--timeout). A rank hangs or cannot be "
        "reached; finished work is in the journal");
  }
  world().barrier();
}

}  // namespace
}  // namespace moefy
