#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "moefy/core/dtype.hpp"
#include "moefy/store/expert_map.hpp"

namespace moefy {

/// Version of every JSON line and file that reports print.
inline constexpr int kReportSchema = 1;

/// Header, one line a layer, and a summary, for people; ends with a line feed.
std::string map_table(const ExpertMap& map);

/// The same as JSON lines, without line feeds: one of type "map", one a layer of type "layer".
std::vector<std::string> map_json_lines(const ExpertMap& map);

/// Everything of the map as one JSON text, arrays included (`inspect --export json`).
std::string map_export_json(const ExpertMap& map);

/// One array of a map; the data lies in the map, which must outlive it.
struct NamedArray {
  std::string name;  ///< "layers.00007.labels"
  DType dtype = DType::f32;
  std::vector<std::int64_t> shape;
  std::span<const std::byte> bytes;
};

/// All arrays of the map, by layer (`inspect --export safetensors`).
std::vector<NamedArray> named_arrays(const ExpertMap& map);

/// One self-contained page: no network, no fonts or scripts from elsewhere. `title` is what the
/// map is called, such as its file name.
std::string map_html(const ExpertMap& map, const std::string& title);

}  // namespace moefy
