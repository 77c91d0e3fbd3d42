#include "moefy/jobs/listing.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "moefy/convert/convert.hpp"
#include "moefy/core/error.hpp"
#include "moefy/core/text.hpp"
#include "moefy/model/architecture.hpp"

namespace moefy {

namespace {

std::string architectures() {
  std::string text;
  for (const Architecture& family : Architecture::built_in())
    text +=
        fmt::format("{:<10} model_type {}\n", family.name(), fmt::join(family.model_types(), ", "));
  return text + "More with --architecture FILE (docs/how-to/add-a-model-family.md).\n";
}

std::string hosts() {
  std::string text;
  const std::vector<std::string> names = host_names();
  const std::size_t width = std::ranges::max(names, {}, &std::string::size).size();
  for (const std::string& host : names)
    text += fmt::format("{:<{}} {}\n", host, width, host_description(host));
  return text;
}

constexpr const char* kMethods =
    "kmeans      exact balanced k-means on weight rows, with an optimality certificate\n"
    "random      keyed random balanced split (baseline)\n"
    "contiguous  neurons in file order (baseline)\n";

constexpr const char* kRouters =
    "centroid    unit mean of each expert's unit rows, from the weights alone (made by split)\n";

}  // namespace

std::string listing(const std::string& topic) {
  if (topic == "architectures") return architectures();
  if (topic == "hosts") return hosts();
  if (topic == "methods") return kMethods;
  if (topic == "routers") return kRouters;
  const std::vector<std::string> topics = {"architectures", "hosts", "methods", "routers"};
  throw UsageError("--list '" + topic + "' is unknown" + suggestion(topic, topics));
}

}  // namespace moefy
