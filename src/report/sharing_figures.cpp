#include <algorithm>

#include "moefy/report/layer_figures.hpp"

namespace moefy {
namespace {

std::vector<std::int32_t> sorted(std::span<const std::int32_t> list) {
  std::vector<std::int32_t> ids(list.begin(), list.end());
  std::ranges::sort(ids);
  return ids;
}

/// |a ∩ b| / |a ∪ b| of two ascending lists; 1 for two empty ones.
double intersection_over_union(std::span<const std::int32_t> a, std::span<const std::int32_t> b) {
  std::size_t common = 0;
  for (auto i = a.begin(), j = b.begin(); i != a.end() && j != b.end();) {
    common += *i == *j ? 1 : 0;
    const bool advance_a = *i <= *j;
    if (*j <= *i) ++j;
    if (advance_a) ++i;
  }
  const std::size_t either = a.size() + b.size() - common;
  return either == 0 ? 1 : static_cast<double>(common) / static_cast<double>(either);
}

}  // namespace

SharingFigures sharing_figures(const NeuronLists& lists) {
  SharingFigures figures;
  figures.omitted = omitted_neurons(lists);
  const std::size_t covered = lists.num_neurons() - figures.omitted.size();
  if (lists.num_neurons() > 0)
    figures.coverage = static_cast<double>(covered) / static_cast<double>(lists.num_neurons());
  figures.duplicates = static_cast<std::int64_t>(lists.members().size() - covered);

  const std::size_t experts = lists.num_experts();
  std::vector<std::vector<std::int32_t>> members;
  for (std::size_t e = 0; e < experts; ++e) members.push_back(sorted(lists.expert_members(e)));
  figures.overlap.resize(experts, experts);
  double sum = 0;
  for (std::size_t a = 0; a < experts; ++a) {
    figures.overlap.row(a)[a] = 1;
    for (std::size_t b = 0; b < a; ++b) {
      const double overlap = intersection_over_union(members[a], members[b]);
      figures.overlap.row(a)[b] = figures.overlap.row(b)[a] = overlap;
      sum += overlap;
    }
  }
  if (experts > 1) figures.mean_overlap = sum / (static_cast<double>(experts * (experts - 1)) / 2);
  return figures;
}

}  // namespace moefy
