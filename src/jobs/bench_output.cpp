#include "bench_output.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <ostream>

#include "moefy/core/error.hpp"
#include "moefy/core/stopwatch.hpp"

namespace moefy {

Spread spread_of(std::vector<double> values) {
  require(!values.empty(), "a spread needs values");
  std::sort(values.begin(), values.end());
  return {values.front(), values[values.size() / 2], values.back()};
}

double timed(const std::function<void()>& work) {
  const Stopwatch stopwatch;
  work();
  return stopwatch.seconds();
}

Spread spread_over_ranks(Communicator& comm, const std::vector<double>& mine) {
  std::vector<double> all;
  for (const std::vector<std::byte>& bytes : comm.gather(std::as_bytes(std::span(mine)))) {
    std::vector<double> values(bytes.size() / sizeof(double));
    std::memcpy(values.data(), bytes.data(), bytes.size());
    all.insert(all.end(), values.begin(), values.end());
  }
  return spread_of(all.empty() ? mine : all);
}

void BenchOutput::line(const nlohmann::json& figures) {
  if (!context_.is_root()) return;
  if (context_.json) {
    context_.out << figures.dump() << std::endl;
    return;
  }
  std::string text;
  for (const auto& [key, value] : figures.items()) {
    if (key == "schema_version" || key == "type") continue;
    text += fmt::format("{}{} {}", text.empty() ? "" : "  ", key,
                        value.is_string() ? value.get<std::string>() : value.dump());
  }
  context_.out << text << std::endl;
}

nlohmann::json to_json(const Spread& spread) {
  return {{"min", spread.min}, {"median", spread.median}, {"max", spread.max}};
}

nlohmann::json goal_line(const std::string& shape, const std::string& figure, double value,
                         double at_most) {
  return {{"schema_version", 1}, {"type", "goal"},     {"shape", shape},         {"figure", figure},
          {"value", value},      {"at_most", at_most}, {"met", value <= at_most}};
}

}  // namespace moefy
