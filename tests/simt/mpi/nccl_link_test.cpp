// The NCCL link between simulated devices: what a rank gets, and what it is told when NCCL fails.
#include <algorithm>
#include <cstring>
#include <map>
#include <vector>

#include "cuda/runtime.hpp"
#include "moefy/backend/backend.hpp"
#include "moefy/comm/bulk_link.hpp"
#include "moefy/comm/waiting.hpp"
#include "moefy/schedule/layer_queue.hpp"
#include "simt.hpp"
#include "support/mpi_main.hpp"

namespace moefy {
namespace {

using test::world;

std::byte byte_of(std::size_t seed, std::size_t i) {
  return static_cast<std::byte>((seed * 31 + i * 7 + i / 251) & 255U);
}

std::vector<std::byte> bytes_of(std::size_t seed, std::size_t size) {
  std::vector<std::byte> bytes(size);
  for (std::size_t i = 0; i < size; ++i) bytes[i] = byte_of(seed, i);
  return bytes;
}

std::vector<std::byte> read(std::span<const std::byte> device) {
  cuda::Stream stream;
  const auto bytes = stream.download<std::byte>(device.data(), device.size());
  stream.wait();
  return {bytes.begin(), bytes.end()};
}

class NcclLinkTest : public testing::Test {
 protected:
  void SetUp() override {
    simt::set_device_count(world().size());
    backend_ = make_cuda_backend(world().rank(), 1);
  }
  void TearDown() override {
    simt::fail("");
    world().barrier();
  }
  /// Collective.
  std::unique_ptr<BulkLink> make_link() {
    std::string why_not;
    auto link = make_nccl_link(world(), *backend_, why_not);
    EXPECT_EQ(why_not, "");
    return link;
  }
  static void wait_for(BulkLink& link, std::size_t handle) {
    Backoff backoff;
    while (!link.done(handle)) backoff.pause();
  }

  std::unique_ptr<Backend> backend_;
};

TEST_F(NcclLinkTest, names_itself_and_its_memory) {
  const auto link = make_link();

  EXPECT_EQ(link->name(), "NCCL 2.27.3");
  EXPECT_EQ(link->space(), MemorySpace::device);
  link->finalize();
}

TEST_F(NcclLinkTest, carries_pieces_to_every_rank) {
  constexpr std::size_t kBytes = 300'000;
  const auto link = make_link();
  const std::span<std::byte> buffer = link->make_buffer(kBytes);
  for (const std::size_t size : {std::size_t{1}, std::size_t{4097}, kBytes}) {
    if (world().rank() == 0) {
      std::ranges::copy(bytes_of(size, size), buffer.begin());
      std::vector<std::size_t> handles;
      for (int rank = 1; rank < world().size(); ++rank)
        handles.push_back(link->send_from(rank, buffer.first(size)));
      for (const std::size_t handle : handles) wait_for(*link, handle);
    } else {
      wait_for(*link, link->receive_into(0, buffer.first(size)));
      EXPECT_TRUE(read(buffer.first(size)) == bytes_of(size, size)) << size;
    }
  }
  link->finalize();
}

TEST_F(NcclLinkTest, carries_the_payloads_of_a_queue_into_devices) {
  const auto link = make_link();
  std::vector<QueueItem> items;
  for (std::int64_t id = 0; id < 9; ++id)
    items.push_back({id, 1, static_cast<std::uint64_t>(id) * 1777});
  const auto memory = backend_->make_transfers();
  const std::span<std::byte> whole = memory->allocate(9 * 1777);
  bool intact = true;
  std::size_t committed = 0;
  QueueCallbacks callbacks;
  callbacks.load = [](std::int64_t id, std::uint64_t offset, std::span<std::byte> piece) {
    for (std::size_t i = 0; i < piece.size(); ++i)
      piece[i] = byte_of(static_cast<std::size_t>(id), offset + i);
  };
  callbacks.prepare = [&](std::int64_t id, PayloadReader* payload, std::stop_token) {
    if (!payload) return;
    const auto size = static_cast<std::size_t>(id) * 1777;
    payload->read(whole.first(size));
    intact = intact && read(whole.first(size)) == bytes_of(static_cast<std::size_t>(id), size);
  };
  callbacks.work = [](std::int64_t, PayloadReader*, std::stop_token) {
    return std::vector<std::byte>(1);
  };
  callbacks.commit = [&](std::int64_t, int, std::vector<std::byte>) { ++committed; };

  run_queue(world(), items, callbacks, {}, 1000, link.get());
  link->finalize();

  EXPECT_TRUE(intact);
  EXPECT_EQ(committed, world().rank() == 0 ? items.size() : 0U);
}

TEST_F(NcclLinkTest, ends_on_all_ranks_when_the_start_fails) {
  for (const char* call : {"ncclGetUniqueId", "ncclCommInitRankConfig", "ncclCommGetAsyncError"}) {
    SCOPED_TRACE(call);
    simt::fail(call);
    EXPECT_THROW(make_link(), CommError);
    simt::fail("");
  }
}

TEST_F(NcclLinkTest, says_which_transfer_failed) {
  if (world().size() == 1) return;
  const auto link = make_link();
  const std::span<std::byte> buffer = link->make_buffer(100);
  simt::fail(world().rank() == 0 ? "ncclSend" : "ncclRecv");
  std::string message;
  try {
    const std::size_t handle =
        world().rank() == 0 ? link->send_from(1, buffer) : link->receive_into(0, buffer);
    wait_for(*link, handle);
  } catch (const CommError& error) {
    message = error.what();
  }

  EXPECT_EQ(message, world().rank() == 0
                         ? "NCCL, sending to rank 1: remote process exited or there was a network "
                           "error"
                         : "NCCL, receiving from rank 0: remote process exited or there was a "
                           "network error");
}

TEST_F(NcclLinkTest, reports_errors_that_come_later) {
  if (world().size() == 1) return;
  const auto link = make_link();
  const std::span<std::byte> buffer = link->make_buffer(100);
  if (world().rank() > 0) {
    const std::size_t handle = link->receive_into(0, buffer);  // nobody sends
    simt::fail("ncclCommGetAsyncError");
    EXPECT_THROW(wait_for(*link, handle), CommError);
  }
  world().barrier();
  // The link goes with what is under way, in silence.
}

TEST_F(NcclLinkTest, reports_a_device_that_fails_meanwhile) {
  if (world().size() == 1) return;
  const auto link = make_link();
  const std::span<std::byte> buffer = link->make_buffer(100);
  if (world().rank() > 0) {
    const std::size_t handle = link->receive_into(0, buffer);
    simt::fail("cudaEventQuery");
    EXPECT_THROW(wait_for(*link, handle), DeviceError);
  }
  world().barrier();
}

}  // namespace
}  // namespace moefy
