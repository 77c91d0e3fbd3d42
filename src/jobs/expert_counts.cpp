#include "expert_counts.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <memory>

#include "moefy/convert/convert.hpp"
#include "moefy/core/error.hpp"
#include "moefy/store/expert_map.hpp"

namespace moefy {

namespace {

/// UsageError unless an MoE host can carry the model with these counts: asked with a made-up map.
void check_host(const ModelSource& source, const ExpertCounts& counts) {
  auto map = std::make_shared<ExpertMap>();
  map->header.num_layers = static_cast<std::int64_t>(source.layers.size());
  const auto lists = static_cast<std::size_t>(counts.experts + counts.shared);
  for (const LayerInfo& layer : source.layers) {
    std::vector<std::int32_t> label(static_cast<std::size_t>(layer.num_neurons));
    for (std::size_t i = 0; i < label.size(); ++i) {
      const auto list = static_cast<std::int32_t>(i % lists);
      label[i] = list < counts.experts ? list : kSharedLabel;
    }
    LayerResult& result = map->layers.emplace_back();
    result.layer_index = layer.index;
    result.name = layer.name;
    result.hidden_size = layer.hidden_size;
    result.partition =
        Partition::from_labels(std::move(label), static_cast<std::size_t>(counts.experts),
                               static_cast<std::size_t>(counts.shared));
  }
  ConvertConfig config;
  config.top_k = counts.top_k;
  plan_conversion(source.checkpoint, source.layers, map, config);
}

}  // namespace

ExpertCounts carried_counts(const CalibrateConfig& config, const ModelSource& source) {
  const ExpertCounts wanted =
      choose_expert_counts(config.granularity, config.active, config.shared);
  const std::int64_t lists = wanted.shared + wanted.top_k;
  std::string first_reason;
  for (std::int64_t distance = 0; distance < lists; ++distance) {
    for (const std::int64_t shared : {wanted.shared - distance, wanted.shared + distance}) {
      const ExpertCounts counts{config.granularity - shared, shared, lists - shared};
      if (shared < 0 || counts.top_k < 1) continue;
      try {
        check_host(source, counts);
        return counts;
      } catch (const UsageError& error) {
        if (first_reason.empty()) first_reason = error.what();
      }
    }
    if (config.shared >= 0) break;
  }
  throw UsageError(first_reason);
}

ExpertCounts choose_expert_counts(std::int64_t granularity, double active, std::int64_t shared) {
  const auto lists =
      static_cast<std::int64_t>(std::llround(active * static_cast<double>(granularity)));
  if (shared < 0) {
    double part = 4;
    if (4 * lists <= granularity) part = 2;
    if (4 * lists >= 3 * granularity) part = 3;
    shared = std::max<std::int64_t>(1, std::llround(static_cast<double>(lists) / part));
  }
  const ExpertCounts counts{granularity - shared, shared, lists - shared};
  if (counts.top_k < 1 || counts.experts < counts.top_k)
    throw UsageError(fmt::format(
        "--granularity {} --active {} --shared {}: {} lists are on for a token, which leaves {} of "
        "{} routed experts to choose; take a finer granularity or fewer shared ones",
        granularity, active, shared, lists, counts.top_k, counts.experts));
  return counts;
}

}  // namespace moefy
