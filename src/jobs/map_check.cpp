#include "map_check.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "layer_feed.hpp"
#include "moefy/jobs/factories.hpp"

namespace moefy {
namespace {

/// Sums of squares in fp64 of fp32 values: other machines differ far below this.
constexpr double kInertiaTolerance = 1e-6;

/// --sizes of the run that made the map; maps of other programs may not say.
std::string sizes_option(const ExpertMap& map) {
  const auto options = nlohmann::json::parse(map.header.config, nullptr, false);
  if (!options.is_object()) return "equal";
  const auto at = options.find("sizes");
  return at != options.end() && at->is_string() ? at->get<std::string>() : "equal";
}

class MapChecker {
 public:
  MapChecker(const ExpertMap& map, const ModelSource& source, JobContext& context)
      : map_(map),
        source_(source),
        context_(context),
        sizes_(sizes_option(map)),
        backend_(make_backend("cpu", context.threads)),
        workspace_(*backend_) {}

  MapCheck run() {
    MapCheck check;
    std::vector<Digest> digests;
    for (const LayerResult& layer : map_.layers) {
      if (context_.stop.stop_requested()) throw Interrupted("stopped while checking the map");
      check.layers.push_back(check_layer(layer, digests));
    }
    if (digests.size() == map_.layers.size() &&
        source_fingerprint(source_.checkpoint, digests) != map_.header.source_fingerprint) {
      check.problems.emplace_back(
          "the source fingerprint differs: config.json was changed, or the "
          "map is of another model");
    }
    return check;
  }

 private:
  MapLayerCheck check_layer(const LayerResult& layer, std::vector<Digest>& digests) {
    MapLayerCheck check;
    check.layer_index = layer.layer_index;
    check.name = layer.name;
    const LayerInfo* info = find_layer(layer);
    if (info == nullptr) {
      check.problems.push_back(
          fmt::format("the model has no layer '{}' with {} neurons of width {}", layer.name,
                      layer.lists().num_neurons(), layer.hidden_size));
      return check;
    }
    digests.push_back(layer_fingerprint(source_.checkpoint, *info));
    if (digests.back() != layer.fingerprint) {
      check.problems.push_back(fmt::format("the weights differ: fingerprint {}, the map has {}",
                                           digests.back().hex(), layer.fingerprint.hex()));
      return check;
    }
    recompute(layer, *info, check);
    return check;
  }

  const LayerInfo* find_layer(const LayerResult& layer) const {
    const auto at = std::ranges::find(source_.layers, layer.layer_index, &LayerInfo::index);
    const bool fits = at != source_.layers.end() && at->name == layer.name &&
                      at->num_neurons == static_cast<std::int64_t>(layer.lists().num_neurons()) &&
                      at->hidden_size == layer.hidden_size;
    return fits ? &*at : nullptr;
  }

  void recompute(const LayerResult& layer, const LayerInfo& info, MapLayerCheck& check) {
    LayerReader reader(source_.checkpoint, info);
    const RowSource source = file_source(reader, raw_);
    const LabelledRows labelled = rows_of_result(info, layer, source, workspace_);
    const std::size_t num_experts = layer.lists().num_experts();
    if (layer.sharing) {
      check.inertia = inertia_of_lists(*backend_, labelled.rows, *layer.sharing);
    } else if (layer.stop_reason == StopReason::not_clustered || layer.prices.empty()) {
      check.inertia =
          figures_of_labels(*backend_, labelled.rows, labelled.label, num_experts).inertia;
    } else {
      if (layer.centroids.cols() != labelled.rows.cols) {
        check.problems.push_back(fmt::format("centroids have {} columns, the clustered rows {}",
                                             layer.centroids.cols(), labelled.rows.cols));
        return;
      }
      recompute_gap(layer, info, labelled, check);
    }
    if (std::abs(*check.inertia - layer.inertia) > kInertiaTolerance * std::abs(layer.inertia)) {
      check.problems.push_back(
          fmt::format("inertia {:.9g}, the map says {:.9g}", *check.inertia, layer.inertia));
    }
  }

  void recompute_gap(const LayerResult& layer, const LayerInfo& info, const LabelledRows& labelled,
                     MapLayerCheck& check) {
    SplitConfig config;
    config.experts = static_cast<std::int64_t>(layer.partition.num_experts());
    config.shared = static_cast<std::int64_t>(layer.partition.num_shared());
    config.weights = layer.weights;
    config.sizes = sizes_;
    check.problems = split_problems(config, info);
    if (!check.problems.empty()) return;
    const ClusteringCheck computed = check_clustering(
        *backend_, labelled.rows, routed_capacities(config, layer.partition.num_neurons()),
        layer.centroids.view(), layer.prices, static_cast<int>(layer.cost_scale_log2),
        labelled.label);
    check.inertia = computed.inertia;
    check.duality_gap = computed.duality_gap;
    check.gap_bound = computed.gap_bound;
    if (!(computed.duality_gap <= layer.duality_gap + computed.gap_bound)) {
      check.problems.push_back(
          fmt::format("duality gap {:.3g}, the map says {:.3g} (rounding "
                      "explains {:.3g})",
                      computed.duality_gap, layer.duality_gap, computed.gap_bound));
    }
  }

  const ExpertMap& map_;
  const ModelSource& source_;
  JobContext& context_;
  std::string sizes_;
  std::unique_ptr<Backend> backend_;
  SplitWorkspace workspace_;
  AlignedBuffer<std::byte> raw_;
};

}  // namespace

bool MapCheck::passed() const {
  return problems.empty() && std::ranges::all_of(layers, [](const MapLayerCheck& layer) {
           return layer.problems.empty();
         });
}

MapCheck check_map(const ExpertMap& map, const ModelSource& source, JobContext& context) {
  return MapChecker(map, source, context).run();
}

}  // namespace moefy
