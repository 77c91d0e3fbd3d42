// A small program around the queue, for tests that kill, stop and break ranks from outside: every
// item's result is a function of its id; finished ones go to a journal; the output is written when
// all are done. Options stand as NAME=VALUE.

#include <fmt/format.h>

#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>

#include "moefy/comm/communicator.hpp"
#include "moefy/core/file.hpp"
#include "moefy/core/hash.hpp"
#include "moefy/core/signals.hpp"
#include "moefy/schedule/journal.hpp"
#include "moefy/schedule/layer_queue.hpp"

namespace {

using namespace moefy;

struct Options {
  std::string output;
  std::int64_t items = 12;
  std::uint64_t payload = 100'000;
  std::size_t piece = 30'000;
  int work_ms = 0;
  int timeout_ms = 600'000;
};

Options parse(int argc, char** argv) {
  std::map<std::string, std::string> values;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    const std::size_t equals = argument.find('=');
    if (equals == std::string::npos) throw UsageError("NAME=VALUE expected: " + argument);
    values[argument.substr(0, equals)] = argument.substr(equals + 1);
  }
  const auto number = [&](const char* name, long long otherwise) {
    return values.contains(name) ? std::stoll(values[name]) : otherwise;
  };
  Options options;
  options.output = values["output"];
  if (options.output.empty()) throw UsageError("output=FILE is missing");
  options.items = number("items", options.items);
  options.payload = static_cast<std::uint64_t>(number("payload", 100'000));
  options.work_ms = static_cast<int>(number("work_ms", options.work_ms));
  options.timeout_ms = static_cast<int>(number("timeout_ms", options.timeout_ms));
  return options;
}

void fill(std::int64_t id, std::uint64_t offset, std::span<std::byte> piece) {
  for (std::size_t i = 0; i < piece.size(); ++i) {
    piece[i] = static_cast<std::byte>((static_cast<std::size_t>(id) * 5 + offset + i) & 255U);
  }
}

/// Takes its time, but leaves at once when asked.
void work_for(std::chrono::milliseconds duration, const std::stop_token& stop) {
  std::mutex mutex;
  std::condition_variable_any wake;
  std::unique_lock lock(mutex);
  wake.wait_for(lock, stop, duration, [] { return false; });
  if (stop.stop_requested()) throw Interrupted("stopped");
}

void run(const Options& options, Communicator& comm, const std::stop_token& stop) {
  const bool coordinator = comm.rank() == 0;
  const auto warn = [](const std::string& text) {
    std::fprintf(stderr, "warning: %s\n", text.c_str());
  };
  std::optional<OutputLock> lock;
  std::optional<Journal> journal;
  std::vector<std::byte> finished;
  together(comm, [&] {
    if (!coordinator) return;
    lock.emplace(options.output + ".lock", warn);
    journal.emplace(
        options.output + ".journal",
        fmt::format(R"({{"items": {}, "payload": {}}})", options.items, options.payload), false);
    finished.resize(static_cast<std::size_t>(options.items));
    for (const std::int64_t id : journal->finished(warn)) {
      finished.at(static_cast<std::size_t>(id)) = std::byte{1};
    }
  });
  comm.broadcast(finished);

  std::vector<QueueItem> items;
  for (std::int64_t id = 0; id < options.items; ++id) {
    if (finished[static_cast<std::size_t>(id)] == std::byte{0}) {
      items.push_back({id, static_cast<std::uint64_t>(id % 4), options.payload});
    }
  }
  QueueCallbacks callbacks;
  callbacks.load = fill;
  callbacks.work = [&](std::int64_t id, PayloadReader* payload, std::stop_token stop_work) {
    std::vector<std::byte> whole(options.payload);
    payload ? payload->read(whole) : fill(id, 0, whole);
    work_for(std::chrono::milliseconds(options.work_ms), stop_work);
    const std::string hash = hash_bytes(whole).hex();
    const auto bytes = std::as_bytes(std::span(hash));
    return std::vector<std::byte>(bytes.begin(), bytes.end());
  };
  callbacks.commit = [&](std::int64_t id, int, std::vector<std::byte> result) {
    journal->append(id, result);
  };
  if (coordinator) std::fprintf(stderr, "driver: %zu items to do\n", items.size());
  run_queue(comm, items, callbacks, stop, options.piece);

  together(comm, [&] {
    if (!coordinator) return;
    std::vector<std::byte> all;
    for (std::int64_t id = 0; id < options.items; ++id) {
      const auto record = journal->read(id);
      all.insert(all.end(), record.begin(), record.end());
    }
    write_file_atomically(options.output, all);
    journal->remove();
  });
}

int guarded_main(int argc, char** argv) {
  const Options options = parse(argc, argv);
  SignalGuard signals;
  const LaunchInfo launch = detect_launch(process_environment());
  std::optional<MpiEnvironment> mpi;
  std::unique_ptr<Communicator> self;
  if (launch.kind == LaunchInfo::Kind::mpi) {
    mpi.emplace(std::chrono::milliseconds(options.timeout_ms));
  } else {
    self = make_self_communicator();
  }
  Communicator& comm = mpi ? mpi->world() : *self;
  ExitCode code = ExitCode::done;
  try {
    run(options, comm, signals.token());
  } catch (const Error& error) {
    code = error.code();
    if (comm.rank() == 0) {
      std::fprintf(stderr, "moefy: %s\nmoefy: exit %d (%s)\n", error.what(), static_cast<int>(code),
                   std::string(reason(code)).c_str());
    }
  }
  signals.ignore_further_signals();
  if (mpi) mpi->finalize();
  return static_cast<int>(code);
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return guarded_main(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "moefy: %s\n", error.what());
    return EXIT_FAILURE;
  }
}
