#include "bench_link.hpp"

#include <nlohmann/json.hpp>

#include "link_choice.hpp"
#include "moefy/comm/waiting.hpp"

namespace moefy {

namespace {

constexpr int kArrivedTag = 2;
/// So many pieces follow one another, as those of a layer do, that beginning and end do not count.
constexpr int kPieces = 8;
constexpr std::size_t kLatencyBytes = 8;

void wait_for(BulkLink& link, std::size_t handle) {
  Backoff backoff;
  while (!link.done(handle)) backoff.pause();
}

/// Rank 0 sends `count` pieces to `peer`, one after the other, and hears when the last has arrived.
void send_pieces(Communicator& comm, BulkLink& link, int peer, std::span<std::byte> piece,
                 int count) {
  if (comm.rank() == peer) {
    for (int p = 0; p < count; ++p) wait_for(link, link.receive_into(0, piece));
    comm.post(0, kArrivedTag, {});
    comm.flush();
  }
  if (comm.rank() == 0) {
    for (int p = 0; p < count; ++p) wait_for(link, link.send_from(peer, piece));
    Backoff backoff;
    while (!comm.poll()) backoff.pause();
  }
}

class LinkBench {
 public:
  LinkBench(const BenchJobConfig& config, JobContext& context, BenchOutput& output)
      : config_(config), context_(context), output_(output) {}

  void run(BulkLink& link) {
    const std::span<std::byte> buffer =
        link.make_buffer(std::max<std::size_t>(config_.bytes, kLatencyBytes));
    for (int peer = 1; peer < context_.comm.size(); ++peer) {
      measure(link, peer, buffer.first(kLatencyBytes), 1);
      measure(link, peer, buffer.first(config_.bytes), kPieces);
    }
  }

 private:
  void measure(BulkLink& link, int peer, std::span<std::byte> piece, int count) {
    std::vector<double> seconds;
    for (int run = -1; run < config_.repeats; ++run) {  // the first one warms up
      context_.comm.barrier();
      const double took =
          timed([&] { send_pieces(context_.comm, link, peer, piece, count); }) / count;
      if (run >= 0) seconds.push_back(took);
    }
    const Spread spread = spread_of(seconds);
    output_.line(
        {{"schema_version", 1},
         {"type", "link"},
         {"link", link.name()},
         {"to_rank", peer},
         {"bytes", piece.size()},
         {"pieces", count},
         {"seconds", to_json(spread)},
         {"gigabytes_per_second", 1e-9 * static_cast<double>(piece.size()) / spread.median}});
  }

  const BenchJobConfig& config_;
  JobContext& context_;
  BenchOutput& output_;
};

}  // namespace

void bench_link(const BenchJobConfig& config, const DeviceChoice& device, Backend& backend,
                JobContext& context, BenchOutput& output) {
  if (context.comm.size() == 1)
    throw UsageError("bench link measures between ranks: start it with mpirun -np 2 or more");
  LinkBench bench(config, context, output);
  const std::unique_ptr<BulkLink> host = make_host_link(context.comm);
  bench.run(*host);
  const LayerLink chosen = choose_link(false, device, device.backend == "cuda", backend, context);
  if (!chosen.link) {
    if (context.is_root()) context.log.info("no other link: layers are " + chosen.description);
    return;
  }
  bench.run(*chosen.link);
  chosen.link->finalize();
}

}  // namespace moefy
