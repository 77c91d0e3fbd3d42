#include "rank_table.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <nlohmann/json.hpp>
#include <ostream>

#include "machine.hpp"
#include "moefy/core/host.hpp"
#include "moefy/core/progress.hpp"
#include "moefy/core/text.hpp"

namespace moefy {

void show_rank_table(JobContext& context, const std::string& backend, const std::string& layers) {
  const MemoryInfo memory = read_memory_info();
  const nlohmann::json mine = {
      {"schema_version", 1},          {"type", "rank"},    {"rank", context.comm.rank()},
      {"host", host_name()},          {"pid", ::getpid()}, {"threads", context.threads},
      {"backend", backend},           {"layers", layers},  {"memory_free", memory.available},
      {"memory_total", memory.total},
  };
  const std::string text = mine.dump();
  const auto rows = context.comm.gather(std::as_bytes(std::span(text)));
  if (!context.is_root()) return;
  if (context.comm.size() == 1) {
    context.log.info(fmt::format("{}, {} thread{}, {} of memory free", backend, context.threads,
                                 context.threads == 1 ? "" : "s",
                                 format_bytes(static_cast<double>(memory.available))));
    if (context.json) context.out << text << '\n';
    return;
  }
  const auto line = [&](const auto&... columns) {
    context.log.info(fmt::format("{:>4}  {:<20} {:>8} {:>7}  {:<22} {:>10} {:>10}", columns...));
  };
  line("rank", "host", "pid", "threads", "backend", "free", "memory");
  for (const std::vector<std::byte>& bytes : rows) {
    const std::string row = to_text(bytes);
    if (context.json) context.out << row << '\n';
    const nlohmann::json rank = nlohmann::json::parse(row);
    line(rank["rank"].get<int>(), rank["host"].get<std::string>(), rank["pid"].get<int>(),
         rank["threads"].get<int>(), rank["backend"].get<std::string>(),
         format_bytes(rank["memory_free"].get<double>()),
         format_bytes(rank["memory_total"].get<double>()));
  }
  context.log.info("layers: " + layers);
}

}  // namespace moefy
