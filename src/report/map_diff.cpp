#include "moefy/report/map_diff.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "map_json.hpp"
#include "moefy/report/map_report.hpp"
#include "table.hpp"

namespace moefy {
namespace {

using nlohmann::json;

/// By neuron the lists that it stands in; the shared lists together are the last one.
std::vector<std::vector<std::size_t>> lists_of_neurons(const NeuronLists& lists) {
  std::vector<std::vector<std::size_t>> found(lists.num_neurons());
  for (std::size_t e = 0; e < lists.num_experts(); ++e) {
    for (const std::int32_t neuron : lists.expert_members(e))
      found[static_cast<std::size_t>(neuron)].push_back(e);
  }
  for (const std::int32_t neuron : lists.shared_members())
    found[static_cast<std::size_t>(neuron)].push_back(lists.num_experts());
  return found;
}

bool equal_matrices(const Matrix<float>& a, const Matrix<float>& b) {
  return a.rows() == b.rows() && a.cols() == b.cols() && std::ranges::equal(a.values(), b.values());
}

bool equal_contents(const LayerResult& a, const LayerResult& b) {
  const auto scalars = [](const LayerResult& layer) {
    return std::tie(layer.name, layer.hidden_size, layer.method, layer.weights, layer.activation,
                    layer.normalize, layer.partition, layer.sharing, layer.score_scale,
                    layer.prices, layer.router.kind, layer.router.bias, layer.inertia,
                    layer.duality_gap, layer.cost_scale_log2, layer.stop_reason, layer.fingerprint);
  };
  return scalars(a) == scalars(b) && equal_matrices(a.centroids, b.centroids) &&
         equal_matrices(a.router.weight, b.router.weight) &&
         equal_matrices(a.router.output, b.router.output);
}

Matrix<std::int64_t> transposed(const Matrix<std::int64_t>& table) {
  Matrix<std::int64_t> result(table.cols(), table.rows());
  for (std::size_t i = 0; i < table.rows(); ++i) {
    for (std::size_t j = 0; j < table.cols(); ++j) result.row(j)[i] = table.row(i)[j];
  }
  return result;
}

/// Experts of b by expert of a, -1 where a has more.
std::vector<std::int32_t> match_experts(const Matrix<std::int64_t>& overlap,
                                        const Matching& match) {
  if (overlap.rows() <= overlap.cols()) return match(overlap);
  std::vector<std::int32_t> matched(overlap.rows(), -1);
  const auto reverse = match(transposed(overlap));
  for (std::size_t b = 0; b < reverse.size(); ++b) {
    matched[static_cast<std::size_t>(reverse[b])] = static_cast<std::int32_t>(b);
  }
  return matched;
}

void compare_lists(const LayerResult& layer_a, const LayerResult& layer_b, const Matching& match,
                   LayerDiff& diff) {
  const NeuronLists& a = layer_a.lists();
  const NeuronLists& b = layer_b.lists();
  const std::size_t experts_a = a.num_experts();
  const std::size_t experts_b = b.num_experts();
  const Matrix<std::int64_t> table = common_neurons(a, b);
  if (!layer_a.sharing && !layer_b.sharing) diff.information = adjusted_mutual_information(table);
  Matrix<std::int64_t> overlap(experts_a, experts_b);
  for (std::size_t i = 0; i < experts_a; ++i) {
    std::ranges::copy(table.row(i).first(experts_b), overlap.row(i).begin());
  }
  diff.matched = match_experts(overlap, match);
  std::int64_t kept = table.row(experts_a)[experts_b];
  for (std::size_t i = 0; i < experts_a; ++i) {
    if (diff.matched[i] >= 0) kept += overlap.row(i)[static_cast<std::size_t>(diff.matched[i])];
  }
  diff.num_members = static_cast<std::int64_t>(std::max(a.members().size(), b.members().size()));
  diff.moved = diff.num_members - kept;
}

LayerDiff compare_layers(const LayerResult& a, const LayerResult& b, const Matching& match) {
  LayerDiff diff;
  diff.layer_index = a.layer_index;
  diff.name = a.name;
  const std::size_t neurons = a.lists().num_neurons();
  if (neurons != b.lists().num_neurons()) {
    diff.incomparable = fmt::format("{} neurons against {}", neurons, b.lists().num_neurons());
    return diff;
  }
  diff.num_neurons = static_cast<std::int64_t>(neurons);
  diff.same_experts = a.partition == b.partition && a.sharing == b.sharing;
  diff.same_contents = equal_contents(a, b);
  if (a.inertia > 0) diff.inertia_ratio = b.inertia / a.inertia;
  compare_lists(a, b, match, diff);
  return diff;
}

LayerDiff only_in(const LayerResult& layer, const char* which) {
  LayerDiff diff;
  diff.layer_index = layer.layer_index;
  diff.name = layer.name;
  diff.incomparable = fmt::format("only in the {} map", which);
  return diff;
}

std::vector<std::string> compare_headers(const ExpertMapHeader& a, const ExpertMapHeader& b) {
  std::vector<std::string> differences;
  const auto compare = [&](const char* name, const auto& x, const auto& y) {
    if (x != y) differences.push_back(fmt::format("{}: {} against {}", name, x, y));
  };
  compare("model_type", a.model_type, b.model_type);
  compare("architecture", a.architecture, b.architecture);
  compare("num_layers", a.num_layers, b.num_layers);
  compare("seed", a.seed, b.seed);
  compare("top_k", a.top_k, b.top_k);
  compare("source_fingerprint", a.source_fingerprint.hex(), b.source_fingerprint.hex());
  compare("options", a.config, b.config);
  return differences;
}

json layer_diff_json(const LayerDiff& layer) {
  json line = {{"schema_version", kReportSchema},
               {"type", "layer-diff"},
               {"layer_index", layer.layer_index},
               {"name", layer.name}};
  if (!layer.incomparable.empty()) {
    line["incomparable"] = layer.incomparable;
    return line;
  }
  line["same_experts"] = layer.same_experts;
  line["same_contents"] = layer.same_contents;
  line["moved"] = layer.moved;
  line["num_neurons"] = layer.num_neurons;
  line["num_members"] = layer.num_members;
  line["matched"] = layer.matched;
  line["adjusted_mutual_information"] = json_number(layer.information);
  line["inertia_ratio"] = json_number(layer.inertia_ratio);
  return line;
}

std::int64_t renamed_experts(const LayerDiff& layer) {
  std::int64_t count = 0;
  for (std::size_t a = 0; a < layer.matched.size(); ++a) {
    count += layer.matched[a] == static_cast<std::int32_t>(a) ? 0 : 1;
  }
  return count;
}

void add_row(TextTable& table, const LayerDiff& layer) {
  if (!layer.incomparable.empty()) {
    table.add({fmt::format("{}", layer.layer_index), layer.name, "-", "-", "-", "-", "-",
               layer.incomparable});
    return;
  }
  const double share = layer.num_members == 0 ? 0
                                              : 100 * static_cast<double>(layer.moved) /
                                                    static_cast<double>(layer.num_members);
  table.add({fmt::format("{}", layer.layer_index), layer.name, fmt::format("{}", layer.moved),
             fmt::format("{:.2f}", share), fmt::format("{}", renamed_experts(layer)),
             layer.information ? fmt::format("{:.4f}", *layer.information) : "-",
             layer.inertia_ratio ? fmt::format("{:.6f}", *layer.inertia_ratio) : "-",
             layer.same_contents  ? "equal"
             : layer.same_experts ? "same experts, other values"
                                  : "differs"});
}

}  // namespace

Matrix<std::int64_t> common_neurons(const NeuronLists& a, const NeuronLists& b) {
  Matrix<std::int64_t> table(a.num_experts() + 1, b.num_experts() + 1);
  std::ranges::fill(table.values(), 0);
  const auto lists_a = lists_of_neurons(a);
  const auto lists_b = lists_of_neurons(b);
  for (std::size_t neuron = 0; neuron < a.num_neurons(); ++neuron) {
    for (const std::size_t i : lists_a[neuron])
      for (const std::size_t j : lists_b[neuron]) ++table.row(i)[j];
  }
  return table;
}

bool MapDiff::same() const {
  return header.empty() && std::ranges::all_of(layers, &LayerDiff::same_contents);
}

MapDiff compare_maps(const ExpertMap& a, const ExpertMap& b, const Matching& match) {
  MapDiff diff;
  diff.header = compare_headers(a.header, b.header);
  for (const LayerResult& layer : a.layers) {
    const LayerResult* other = b.find(layer.layer_index);
    diff.layers.push_back(other == nullptr ? only_in(layer, "first")
                                           : compare_layers(layer, *other, match));
  }
  for (const LayerResult& layer : b.layers) {
    if (a.find(layer.layer_index) == nullptr) diff.layers.push_back(only_in(layer, "second"));
  }
  std::ranges::sort(diff.layers, {}, &LayerDiff::layer_index);
  return diff;
}

std::string diff_table(const MapDiff& diff) {
  std::string text;
  for (const std::string& difference : diff.header) text += difference + "\n";
  if (!text.empty()) text += "\n";
  TextTable table(
      {"layer", "name", "moved", "%", "renamed", "information", "inertia B/A", "result"});
  for (const LayerDiff& layer : diff.layers) add_row(table, layer);
  return text + table.text() + (diff.same() ? "\nthe maps are equal\n" : "\nthe maps differ\n");
}

std::vector<std::string> diff_json_lines(const MapDiff& diff) {
  std::vector<std::string> lines = {dump_json({{"schema_version", kReportSchema},
                                               {"type", "diff"},
                                               {"same", diff.same()},
                                               {"header", diff.header}})};
  for (const LayerDiff& layer : diff.layers) lines.push_back(dump_json(layer_diff_json(layer)));
  return lines;
}

}  // namespace moefy
