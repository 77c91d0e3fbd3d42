#include "moefy/jobs/inspect.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <ostream>

#include "map_check.hpp"
#include "moefy/checkpoint/writer.hpp"
#include "moefy/core/file.hpp"
#include "moefy/core/text.hpp"
#include "moefy/report/map_report.hpp"
#include "output_place.hpp"

namespace moefy {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

void print_json(std::ostream& out, json line) {
  line["schema_version"] = kReportSchema;
  out << line.dump(-1, ' ', false, json::error_handler_t::replace) << '\n';
}

void show_model(const ModelSource& source, JobContext& context) {
  if (context.json) {
    print_json(context.out, {{"type", "model"},
                             {"architecture", source.architecture.name()},
                             {"directory", source.checkpoint.directory().string()},
                             {"parameters", parameter_count(source.checkpoint)},
                             {"num_layers", source.layers.size()}});
  } else {
    context.out << fmt::format("{}: family {}, {} parameters, {} FFN layers\n\n",
                               source.checkpoint.directory().string(), source.architecture.name(),
                               parameter_count(source.checkpoint), source.layers.size());
    context.out << fmt::format("{:>5}  {:<40} {:>8} {:>7}  {:<18} {}\n", "layer", "name", "neurons",
                               "width", "activation", "matrices");
  }
  for (const LayerInfo& layer : source.layers) {
    std::vector<std::string> roles;
    for (const FfnTensor& tensor : layer.tensors) {
      roles.push_back(fmt::format("{} {}", to_string(tensor.role), name_of(tensor.dtype)));
    }
    if (context.json) {
      print_json(context.out, {{"type", "ffn-layer"},
                               {"layer_index", layer.index},
                               {"name", layer.name},
                               {"stack", layer.stack},
                               {"num_neurons", layer.num_neurons},
                               {"hidden_size", layer.hidden_size},
                               {"activation", layer.activation},
                               {"file_bytes", layer.file_bytes()},
                               {"tensors", roles}});
    } else {
      context.out << fmt::format("{:>5}  {:<40} {:>8} {:>7}  {:<18} {}\n", layer.index, layer.name,
                                 layer.num_neurons, layer.hidden_size, layer.activation,
                                 join_text(roles, ", "));
    }
  }
}

void show_manifest(const fs::path& directory, JobContext& context) {
  const fs::path path = directory / "moefy" / "manifest.json";
  const json manifest = json::parse(read_text_file(path), nullptr, false);
  if (!manifest.is_object()) throw InputError(path.string() + ": not a JSON object");
  if (context.json) {
    print_json(context.out, {{"type", "manifest"}, {"manifest", manifest}});
    return;
  }
  context.out << "converted by moefy: " << directory.string() << '\n';
  // Lists (tensor names, pads) are for programs; a person wants the short values.
  const auto show = [&](const std::string& prefix, const json& object) {
    for (const auto& [name, value] : object.items()) {
      if (value.is_structured()) continue;
      context.out << fmt::format("  {}{}: {}\n", prefix, name,
                                 value.is_string() ? value.get<std::string>() : value.dump());
    }
  };
  show("", manifest);
  for (const auto& [name, value] : manifest.items()) {
    if (value.is_object()) show(name + ".", value);
  }
  context.out << '\n';
}

void show_map(const ExpertMap& map, JobContext& context) {
  if (!context.json) {
    context.out << map_table(map);
    return;
  }
  for (const std::string& line : map_json_lines(map)) context.out << line << '\n';
}

void export_safetensors(const ExpertMap& map, const fs::path& path) {
  const std::vector<NamedArray> arrays = named_arrays(map);
  std::vector<TensorSpec> specs;
  for (const NamedArray& array : arrays) specs.push_back({array.name, array.dtype, array.shape});
  // Written beside the target, so that it appears complete or not at all.
  const fs::path partial = path.string() + ".partial";
  try {
    SafetensorsWriter writer(partial, specs,
                             {{"moefy_format", "moefy-expert-map"},
                              {"moefy_config", map.header.config},
                              {"source_fingerprint", map.header.source_fingerprint.hex()}});
    for (std::size_t i = 0; i < arrays.size(); ++i) writer.write(i, 0, arrays[i].bytes);
    writer.finish();
    std::error_code error;
    fs::rename(partial, path, error);
    if (error) throw IoError(path.string(), "rename", error.value());
    sync_directory(path.has_parent_path() ? path.parent_path() : ".");
  } catch (...) {
    std::error_code ignored;
    fs::remove(partial, ignored);
    throw;
  }
}

/// Files to write must not be in the way.
void check_places(const InspectJobConfig& config, const fs::path& map_file, bool force) {
  for (const fs::path& file : {config.html, config.export_file}) {
    require_file_place(file, {map_file});
    if (!file.empty() && fs::exists(file) && !force) {
      throw UsageError(file.string() + " exists; --force replaces it");
    }
  }
}

void write_files(const InspectJobConfig& config, const ExpertMap& map, const fs::path& map_file,
                 JobContext& context) {
  if (!config.html.empty()) {
    write_file_atomically(config.html, map_html(map, map_file.filename().string()));
    context.log.info("wrote " + config.html.string());
  }
  if (config.export_format == "json")
    write_file_atomically(config.export_file, map_export_json(map));
  if (config.export_format == "safetensors") export_safetensors(map, config.export_file);
  if (!config.export_format.empty()) context.log.info("wrote " + config.export_file.string());
}

json number_or_null(const std::optional<double>& value) {
  return value ? json(*value) : json(nullptr);
}

ExitCode show_check(const MapCheck& check, JobContext& context) {
  if (context.json) {
    print_json(context.out,
               {{"type", "check"}, {"passed", check.passed()}, {"problems", check.problems}});
  }
  for (const MapLayerCheck& layer : check.layers) {
    if (context.json) {
      print_json(context.out, {{"type", "layer-check"},
                               {"layer_index", layer.layer_index},
                               {"name", layer.name},
                               {"inertia", number_or_null(layer.inertia)},
                               {"duality_gap", number_or_null(layer.duality_gap)},
                               {"gap_bound", layer.gap_bound},
                               {"problems", layer.problems}});
      continue;
    }
    for (const std::string& problem : layer.problems) {
      context.out << fmt::format("layer {} ({}): {}\n", layer.layer_index, layer.name, problem);
    }
  }
  if (!context.json) {
    for (const std::string& problem : check.problems) context.out << problem << '\n';
    context.out << (check.passed()
                        ? fmt::format("verified: fingerprints, inertia and duality gap of {} "
                                      "layers\n",
                                      check.layers.size())
                        : "the map does not hold for this model\n");
  }
  return check.passed() ? ExitCode::done : ExitCode::differs;
}

ExitCode inspect_map(const InspectJobConfig& config, const fs::path& map_file,
                     JobContext& context) {
  check_places(config, map_file, context.force);
  const ExpertMap map = read_expert_map(map_file, &context.log);
  show_map(map, context);
  write_files(config, map, map_file, context);
  if (!config.verify) return ExitCode::done;
  const ModelSource source = open_model(config.model, context.architecture_file);
  return show_check(check_map(map, source, context), context);
}

ExitCode inspect_model(const InspectJobConfig& config, JobContext& context) {
  if (config.verify || !config.html.empty() || !config.export_format.empty()) {
    throw UsageError(config.subject +
                     " is a model; --verify, --html and --export need an expert "
                     "map or a converted directory");
  }
  show_model(open_model(config.subject, context.architecture_file), context);
  return ExitCode::done;
}

}  // namespace

std::vector<std::string> validate(const InspectJobConfig& config) {
  std::vector<std::string> problems;
  if (config.subject.empty())
    problems.emplace_back("inspect needs a map, a model or a converted folder");
  if (config.verify && config.model.empty()) {
    problems.emplace_back("--verify needs --model MODEL, the dense model the map was made of");
  }
  if (!config.verify && !config.model.empty()) {
    problems.emplace_back("--model is read by --verify only");
  }
  const std::vector<std::string> formats = {"json", "safetensors"};
  if (!config.export_format.empty() && std::ranges::count(formats, config.export_format) == 0) {
    problems.push_back("--export '" + config.export_format + "' is unknown" +
                       suggestion(config.export_format, formats));
  }
  if (config.export_format.empty() != config.export_file.empty()) {
    problems.emplace_back("--export FORMAT and -o FILE belong together");
  }
  return problems;
}

ExitCode run_inspect(const InspectJobConfig& config, JobContext& context) {
  if (!context.is_root()) return ExitCode::done;
  const fs::path subject = config.subject;
  // What cannot even be asked about is left to the reader, whose message says why.
  std::error_code ignored;
  if (fs::is_regular_file(subject, ignored)) return inspect_map(config, subject, context);
  const fs::path map_inside = subject / "moefy" / "map.h5";
  if (fs::is_regular_file(map_inside, ignored)) {
    show_manifest(subject, context);
    return inspect_map(config, map_inside, context);
  }
  return inspect_model(config, context);
}

}  // namespace moefy
