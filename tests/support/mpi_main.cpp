#include "support/mpi_main.hpp"

#include <fmt/format.h>

#include <cstdio>
#include <memory>
#include <optional>

namespace moefy::test {
namespace {

std::unique_ptr<Communicator> self;
std::optional<MpiEnvironment> environment;

std::vector<std::byte> bytes_of(const std::string& text) {
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

/// Makes a failure on any rank a failure of the test on all of them, and has rank 0 print it.
class RankListener : public testing::EmptyTestEventListener {
 public:
  void OnTestStart(const testing::TestInfo&) override { failures_.clear(); }

  void OnTestPartResult(const testing::TestPartResult& result) override {
    if (!result.failed()) return;
    failures_ += fmt::format("{}:{}: {}\n", result.file_name() ? result.file_name() : "?",
                             result.line_number(), result.message());
  }

  // Listeners end in reverse order: this one, added last, comes before the printer says OK.
  void OnTestEnd(const testing::TestInfo& info) override {
    const auto by_rank = world().gather(bytes_of(failures_));
    std::string others;
    for (std::size_t rank = 1; rank < by_rank.size(); ++rank) {
      if (by_rank[rank].empty()) continue;
      others += fmt::format(
          "on rank {}:\n{}", rank,
          std::string(reinterpret_cast<const char*>(by_rank[rank].data()), by_rank[rank].size()));
    }
    const bool all_passed = on_all_ranks(info.result()->Passed() || info.result()->Skipped());
    if (!others.empty()) {
      ADD_FAILURE() << others;
    } else if (!all_passed && info.result()->Passed()) {
      ADD_FAILURE() << "failed on another rank";
    }
  }

 private:
  std::string failures_;
};

}  // namespace

Communicator& world() { return environment ? environment->world() : *self; }

bool on_all_ranks(bool mine) {
  const std::byte mine_byte{mine ? std::uint8_t{1} : std::uint8_t{0}};
  const auto all = world().gather(std::span(&mine_byte, 1));
  std::vector<std::byte> verdict(1, std::byte{1});
  for (const auto& one : all) verdict[0] &= one.at(0);
  world().broadcast(verdict);
  return verdict.at(0) == std::byte{1};
}

}  // namespace moefy::test

/// Open MPI leaves the memory of ended threads where LeakSanitizer still looks, and crashes it. The
/// same code is checked for leaks by tests without MPI.
extern "C" const char* __asan_default_options();  // NOLINT(bugprone-reserved-identifier)
extern "C" const char* __asan_default_options() { return "detect_leaks=0"; }

int main(int argc, char** argv) {
  using namespace moefy;
  using namespace moefy::test;
  constexpr std::chrono::seconds kTimeout{30};
  try {
    testing::InitGoogleTest(&argc, argv);
    if (detect_launch(process_environment()).kind == LaunchInfo::Kind::mpi) {
      environment.emplace(kTimeout, kTestChunkBytes);
    } else {
      self = make_self_communicator();
    }
    auto& listeners = testing::UnitTest::GetInstance()->listeners();
    if (world().rank() != 0) {
      delete listeners.Release(listeners.default_result_printer());
      delete listeners.Release(listeners.default_xml_generator());
    }
    listeners.Append(new RankListener);
    const int failed = RUN_ALL_TESTS();
    if (environment) environment->finalize();
    return failed;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
