#include "moefy/cli/run.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <iostream>
#include <optional>

#include "help.hpp"
#include "moefy/core/process_memory.hpp"
#include "moefy/core/signals.hpp"
#include "moefy/core/text.hpp"
#include "moefy/core/thread_pool.hpp"
#include "moefy/core/utf8.hpp"
#include "moefy/jobs/listing.hpp"
#include "moefy/jobs/version.hpp"
#include "parse.hpp"
#include "python_command.hpp"

namespace moefy {

namespace {

using Seconds = std::chrono::duration<double>;

/// The authoritative last line of a run that did not end with 0.
int report_exit(ExitCode code, bool speaker) {
  if (speaker && code != ExitCode::done)
    fmt::print(stderr, "moefy: exit {} ({})\n", static_cast<int>(code), reason(code));
  return static_cast<int>(code);
}

/// One message and the last line; only the rank that speaks for all.
int report_failure(const Error& error, bool speaker) {
  if (speaker) fmt::print(stderr, "moefy: {}\n", error.what());
  return report_exit(error.code(), speaker);
}

std::string command_line_of(int argc, char** argv) {
  std::vector<std::string> words = {"moefy"};
  for (int i = 1; i < argc; ++i) words.emplace_back(argv[i]);
  return valid_utf8(join_text(words, " "));
}

CommandSpec find_command(const std::string& name) {
  std::vector<std::string> names;
  for (CommandSpec& command : all_commands()) {
    if (command.name == name) return command;
    names.push_back(command.name);
  }
  for (const PythonCommand& command : python_commands()) names.emplace_back(command.name);
  throw UsageError("command '" + name + "' is unknown" + suggestion(name, names));
}

LogLevel log_level(const OptionValues& values) {
  const std::string& name = values.text("log-level");
  if (values.flag("quiet")) return LogLevel::warning;
  if (name == "debug") return LogLevel::debug;
  if (name == "warning") return LogLevel::warning;
  return name == "error" ? LogLevel::error : LogLevel::info;
}

/// Options of the run that every command has.
struct RunSettings {
  std::size_t threads = 1;
  bool default_threads = false;
  Seconds timeout{600};
  std::optional<Seconds> wall_time;
  LogConfig log;
};

RunSettings read_settings(OptionValues& values, const LaunchInfo& launch) {
  RunSettings settings;
  settings.default_threads = !values.given("threads");
  const std::int64_t threads = settings.default_threads ? 1 : values.integer("threads");
  if (threads < 1 || threads > 4096) values.add_problems({"--threads must be between 1 and 4096"});
  settings.threads = static_cast<std::size_t>(std::clamp<std::int64_t>(threads, 1, 4096));
  if (settings.default_threads) {
    settings.threads = std::max<std::size_t>(
        1, affinity_cpu_count() / static_cast<std::size_t>(std::max(1, launch.local_size)));
  }
  settings.timeout = Seconds(values.seconds("timeout"));
  if (settings.timeout.count() <= 0) values.add_problems({"--timeout must be more than 0"});
  if (values.knows("wall-time") && values.given("wall-time"))
    settings.wall_time = Seconds(values.seconds("wall-time"));
  settings.log.rank = launch.rank;
  settings.log.level = log_level(values);
  if (!values.text("log").empty()) settings.log.file = values.text("log");
  return settings;
}

/// The command with its options, ready to run; every problem told at once.
struct Prepared {
  ParsedCommand parsed;
  CommandRun run;
  RunSettings settings;
};

/// Nothing if the command line only asked for text, which is then printed.
std::optional<Prepared> prepare(const std::vector<std::string>& arguments,
                                const LaunchInfo& launch) {
  Prepared prepared;
  ParsedCommand& parsed = prepared.parsed;
  parsed.command = find_command(arguments.front());
  parse_arguments({arguments.begin() + 1, arguments.end()}, parsed);
  if (parsed.help || parsed.help_all) {
    if (launch.rank == 0) std::cout << command_help(parsed.command, parsed.specs, parsed.help_all);
    return std::nullopt;
  }
  OptionValues& values = *parsed.values;
  if (values.problems().empty() && parsed.dump_config) {
    if (launch.rank == 0) std::cout << values.to_json(parsed.config_names()) << '\n';
    return std::nullopt;
  }
  prepared.run = parsed.command.prepare(values);
  prepared.settings = read_settings(values, launch);
  if (!values.problems().empty())
    throw UsageError(std::vector<std::string>(values.problems().begin(), values.problems().end()));
  return prepared;
}

void warn_about_threads(const Prepared& prepared, Log& log) {
  const std::size_t online = std::thread::hardware_concurrency();
  if (prepared.settings.default_threads && prepared.settings.threads == 1 && online > 1 &&
      affinity_cpu_count() == 1) {
    log.warning(fmt::format(
        "this rank is bound to one of {} CPUs (mpirun's default); launch/mpirun or --bind-to none "
        "gives it more",
        online));
  }
}

/// Runs the command on this rank.
ExitCode run_command(Prepared& prepared, Communicator& comm, const SignalGuard& signals,
                     const std::string& command_line) {
  OptionValues& values = *prepared.parsed.values;
  std::optional<Log> own_log;
  together(comm, [&] { own_log.emplace(prepared.settings.log, comm.size()); });
  Log& log = *own_log;
  log.file_only(command_line);
  log.file_only(values.to_json(prepared.parsed.config_names()));
  warn_about_threads(prepared, log);
  if (values.flag("no-verify")) log.info("checks are off (--no-verify)");
  JobContext context{
      .comm = comm,
      .log = log,
      .out = std::cout,
      .stop = signals.token(),
      .threads = prepared.settings.threads,
      .json = values.flag("json"),
      .progress = values.flag("quiet") || comm.rank() != 0 ? Progress::Style::quiet
                                                           : Progress::Style::automatic,
      .force = values.flag("force"),
      .verify = !values.flag("no-verify"),
      .architecture_file = values.text("architecture"),
      .command_line = command_line,
  };
  try {
    const ExitCode code = prepared.run(context);
    std::cout.flush();
    if (!std::cout) throw IoError("standard output: cannot write (closed or full)");
    return code;
  } catch (const Interrupted& error) {
    const std::string cause = signals.cause();
    throw Interrupted(cause.empty() ? error.what() : cause + ": " + error.what());
  } catch (const Error&) {
    throw;
  } catch (const std::bad_alloc&) {
    throw InternalError("out of memory; `moefy plan` tells what a run needs");
  } catch (const std::exception& error) {
    throw InternalError(error.what());
  }
}

int run_launched(Prepared& prepared, const LaunchInfo& launch, const std::string& command_line) {
  SignalGuard signals(prepared.settings.wall_time);
  if (launch.kind == LaunchInfo::Kind::alone) {
    const std::unique_ptr<Communicator> comm = make_self_communicator();
    return report_exit(run_command(prepared, *comm, signals, command_line), true);
  }
  MpiEnvironment mpi(
      std::chrono::duration_cast<std::chrono::milliseconds>(prepared.settings.timeout));
  require_launched_size(launch, mpi.world());
  const bool speaker = mpi.world().rank() == 0;
  int exit_code = 0;
  try {
    exit_code = report_exit(run_command(prepared, mpi.world(), signals, command_line), speaker);
  } catch (const Error& error) {
    exit_code = report_failure(error, speaker);
  }
  signals.ignore_further_signals();
  mpi.finalize();
  return exit_code;
}

int print_and_return(const std::string& text, int rank) {
  if (rank == 0) std::cout << text;
  return 0;
}

}  // namespace

int run_program(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + std::min(argc, 1), argv + argc);
  int rank = 0;
  try {
    const LaunchInfo launch = detect_launch(process_environment());
    rank = launch.rank;
    if (arguments.empty() || arguments[0] == "--help" || arguments[0] == "-h" ||
        arguments[0] == "help") {
      return print_and_return(program_help(), rank);
    }
    if (arguments[0] == "--version") return print_and_return(version_report(), rank);
    if (arguments[0] == "--list")
      return print_and_return(listing(arguments.size() > 1 ? arguments[1] : ""), rank);
    // The package knows which commands share their work under torchrun.
    if (is_python_command(arguments[0])) run_python_command(arguments);
    std::optional<Prepared> prepared = prepare(arguments, launch);
    if (!prepared) return 0;
    if (launch.kind == LaunchInfo::Kind::torchrun) {
      throw UsageError(
          "launched by torchrun: moefy's own ranks speak MPI; start them with launch/mpirun or "
          "srun");
    }
    keep_freed_memory();
    return run_launched(*prepared, launch, command_line_of(argc, argv));
  } catch (const Error& error) {
    return report_failure(error, rank == 0);
  } catch (const std::exception& error) {
    return report_failure(InternalError(error.what()), true);
  }
}

}  // namespace moefy
