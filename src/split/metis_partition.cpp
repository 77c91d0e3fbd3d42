#include "moefy/core/error.hpp"
#include "neuron_graph.hpp"

#if MOEFY_METIS

#include <fmt/format.h>
#include <metis.h>

#include <algorithm>
#include <limits>

namespace moefy {

namespace {

/// METIS' whole numbers may be narrower than ours.
std::vector<idx_t> as_metis(std::span<const std::int64_t> values, const char* what) {
  constexpr std::int64_t kMost = std::numeric_limits<idx_t>::max();
  std::vector<idx_t> result;
  result.reserve(values.size());
  for (const std::int64_t value : values) {
    if (value > kMost)
      throw InputError(
          fmt::format("the co-activation graph is too large for METIS: {} {}", what, value));
    result.push_back(static_cast<idx_t>(value));
  }
  return result;
}

}  // namespace

void require_metis() {}

bool metis_available() { return true; }

std::vector<std::int32_t> partition_graph(const NeuronGraph& graph, std::size_t parts,
                                          std::uint64_t seed) {
  if (parts == 1) return std::vector<std::int32_t>(graph.num_vertices(), 0);
  std::vector<idx_t> begin = as_metis(graph.begin, "edges");
  std::vector<idx_t> neighbour(graph.neighbour.begin(), graph.neighbour.end());
  std::vector<idx_t> weight = as_metis(graph.weight, "weight");
  idx_t options[METIS_NOPTIONS];
  METIS_SetDefaultOptions(options);
  options[METIS_OPTION_OBJTYPE] = METIS_OBJTYPE_CUT;
  options[METIS_OPTION_NUMBERING] = 0;
  options[METIS_OPTION_UFACTOR] = 30;
  options[METIS_OPTION_SEED] = static_cast<idx_t>(seed % 0x7fffffff);
  auto vertices = static_cast<idx_t>(graph.num_vertices());
  auto wanted = static_cast<idx_t>(parts);
  idx_t constraints = 1;
  idx_t cut = 0;
  std::vector<idx_t> part(graph.num_vertices());
  const int status =
      METIS_PartGraphKway(&vertices, &constraints, begin.data(), neighbour.data(), nullptr, nullptr,
                          weight.data(), &wanted, nullptr, nullptr, options, &cut, part.data());
  if (status == METIS_ERROR_MEMORY) throw std::bad_alloc();
  if (status != METIS_OK)
    throw InternalError(fmt::format("METIS_PartGraphKway failed with status {}", status));
  return {part.begin(), part.end()};
}

}  // namespace moefy

#else

namespace moefy {

void require_metis() {
  throw UsageError("--method coactivation: built without METIS; configure with -DMOEFY_METIS=ON");
}

bool metis_available() { return false; }

std::vector<std::int32_t> partition_graph(const NeuronGraph&, std::size_t, std::uint64_t) {
  require_metis();
  return {};
}

}  // namespace moefy

#endif
