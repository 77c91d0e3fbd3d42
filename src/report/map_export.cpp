#include <fmt/format.h>

#include "map_json.hpp"
#include "moefy/report/map_report.hpp"

namespace moefy {
namespace {

using nlohmann::json;

json matrix_json(const Matrix<float>& matrix) {
  json rows = json::array();
  for (std::size_t row = 0; row < matrix.rows(); ++row) {
    const auto values = matrix.row(row);
    rows.push_back(std::vector<float>(values.begin(), values.end()));
  }
  return rows;
}

template <class T>
json list_json(std::span<const T> values) {
  return std::vector<T>(values.begin(), values.end());
}

json numbers_json(std::span<const double> values) {
  json list = json::array();
  for (const double value : values) list.push_back(json_number(value));
  return list;
}

json full_layer_json(const LayerResult& layer) {
  json out = layer_json(layer, figures_of(layer));
  if (!layer.sharing) out["labels"] = list_json(layer.partition.labels());
  out["members"] = list_json(layer.lists().members());
  out["expert_offset"] = list_json(layer.lists().expert_offset());
  if (layer.lists().num_shared() > 0) {
    out["shared_offset"] = list_json(layer.lists().shared_offset());
  }
  out["centroids"] = matrix_json(layer.centroids);
  out["prices"] = numbers_json(layer.prices);
  if (out["router"].is_object()) {
    out["router"]["weight"] = matrix_json(layer.router.weight);
    if (layer.router.output.rows() > 0) out["router"]["output"] = matrix_json(layer.router.output);
    out["router"]["bias"] = list_json(std::span<const float>(layer.router.bias));
  }
  out["stats"] = {{"inertia_trace", numbers_json(layer.inertia_trace)},
                  {"augmentations", layer.augmentations},
                  {"surplus", layer.surplus}};
  return out;
}

/// Collects the arrays of one layer under its prefix.
class ArrayList {
 public:
  ArrayList(std::vector<NamedArray>& arrays, std::int64_t layer_index)
      : arrays_(arrays), prefix_(fmt::format("layers.{:05}.", layer_index)) {}

  template <class T>
  void add(const char* name, DType dtype, std::span<const T> values) {
    if (values.empty()) return;
    arrays_.push_back(
        {prefix_ + name, dtype, {static_cast<std::int64_t>(values.size())}, std::as_bytes(values)});
  }
  void add(const char* name, const Matrix<float>& matrix) {
    if (matrix.values().empty()) return;
    arrays_.push_back(
        {prefix_ + name,
         DType::f32,
         {static_cast<std::int64_t>(matrix.rows()), static_cast<std::int64_t>(matrix.cols())},
         std::as_bytes(matrix.values())});
  }

 private:
  std::vector<NamedArray>& arrays_;
  std::string prefix_;
};

}  // namespace

std::string map_export_json(const ExpertMap& map) {
  json out = header_json(map);
  out["schema_version"] = kReportSchema;
  out["type"] = "export";
  out["layers"] = json::array();
  for (const LayerResult& layer : map.layers) out["layers"].push_back(full_layer_json(layer));
  return dump_json(out);
}

std::vector<NamedArray> named_arrays(const ExpertMap& map) {
  std::vector<NamedArray> arrays;
  for (const LayerResult& layer : map.layers) {
    ArrayList list(arrays, layer.layer_index);
    list.add("labels", DType::i32, layer.partition.labels());
    list.add("members", DType::i32, layer.lists().members());
    list.add("expert_offset", DType::i64, layer.lists().expert_offset());
    if (layer.lists().num_shared() > 0) {
      list.add("shared_offset", DType::i64, layer.lists().shared_offset());
    }
    list.add("centroids", layer.centroids);
    list.add("prices", DType::f64, std::span<const double>(layer.prices));
    list.add("router.weight", layer.router.weight);
    if (layer.router.output.rows() > 0) list.add("router.output", layer.router.output);
    list.add("router.bias", DType::f32, std::span<const float>(layer.router.bias));
    list.add("stats.inertia_trace", DType::f64, std::span<const double>(layer.inertia_trace));
  }
  return arrays;
}

}  // namespace moefy
