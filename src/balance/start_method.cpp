#include "moefy/balance/start_method.hpp"

#include <array>
#include <utility>

#include "moefy/core/error.hpp"
#include "moefy/core/text.hpp"

namespace moefy {
namespace {

constexpr std::array<std::pair<StartMethod, const char*>, 4> kStarts{{
    {StartMethod::faiss, "faiss"},
    {StartMethod::faiss_gpu, "faiss-gpu"},
    {StartMethod::kmeanspp, "kmeans++"},
    {StartMethod::random, "random"},
}};

}  // namespace

std::vector<std::string> start_names() {
  std::vector<std::string> names;
  for (const auto& [start, name] : kStarts) names.emplace_back(name);
  return names;
}

std::string to_string(StartMethod start) {
  for (const auto& [known, name] : kStarts) {
    if (known == start) return name;
  }
  throw InternalError("unknown start method");
}

std::optional<StartMethod> find_start_method(const std::string& name) {
  for (const auto& [start, known] : kStarts) {
    if (name == known) return start;
  }
  return std::nullopt;
}

StartMethod start_method(const std::string& name) {
  if (const auto found = find_start_method(name)) return *found;
  throw UsageError("start '" + name + "' is unknown" + suggestion(name, start_names()));
}

}  // namespace moefy
