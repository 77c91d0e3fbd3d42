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
    "contiguous  neurons in file order (baseline)\n"
    "those that need --recordings (moefy record):\n"
    "coactivation  METIS parts of the graph of neurons that are active together, made exact\n"
    "activation  exact balanced k-means of activation patterns\n"
    "gradient    neurons that matter most for one cluster of texts each\n"
    "            (--sharing inner, inter: neurons in several experts)\n"
    "routed      neurons and ridge router fitted to each other, for --top-k\n"
    "prune       the --keep X most important neurons as one expert, or random ones without "
    "recordings\n";

constexpr const char* kRouters =
    "centroid    unit mean of each expert's unit rows, from the weights alone (made by split)\n"
    "mean-gate   the same with the length of the layer's rows\n"
    "random      normal, standard deviation 0.02\n"
    "zero        all experts equal, for checks\n"
    "those that need --recordings (moefy record):\n"
    "ridge       least squares of the norm of each expert's output\n"
    "mlp         MoEfication's two layers (of the hosts llama-moe has them)\n"
    "mlp-topk    LLaMA-MoE's two layers (of the hosts llama-moe has them)\n";

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
