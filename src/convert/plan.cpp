#include "plan.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cmath>

#include "hosts/host.hpp"
#include "moefy/core/error.hpp"
#include "moefy/core/text.hpp"

namespace moefy {

namespace {

/// Text order with runs of digits compared as numbers, so that layer 2 comes before layer 10.
bool natural_less(std::string_view a, std::string_view b) {
  std::size_t i = 0;
  std::size_t j = 0;
  const auto digit = [](char c) { return c >= '0' && c <= '9'; };
  const auto run = [&](std::string_view text, std::size_t& at) {
    while (at + 1 < text.size() && text[at] == '0' && digit(text[at + 1])) ++at;
    const std::size_t begin = at;
    while (at < text.size() && digit(text[at])) ++at;
    return text.substr(begin, at - begin);
  };
  while (i < a.size() && j < b.size()) {
    if (digit(a[i]) && digit(b[j])) {
      const std::string_view left = run(a, i);
      const std::string_view right = run(b, j);
      if (left.size() != right.size()) return left.size() < right.size();
      if (left != right) return left < right;
    } else {
      if (a[i] != b[j]) return a[i] < b[j];
      ++i;
      ++j;
    }
  }
  if (a.size() - i != b.size() - j) return a.size() - i < b.size() - j;
  return a < b;
}

/// The map's layers by place; InputError where map and checkpoint disagree.
void match_layers(ConversionPlan& plan) {
  const std::vector<LayerInfo>& layers = plan.source.layers;
  const ExpertMap& map = *plan.map;
  if (map.header.num_layers != static_cast<std::int64_t>(layers.size()))
    throw InputError(
        fmt::format("the map is of a model with {} FFN layers, the checkpoint has {}; was it made "
                    "of another checkpoint?",
                    map.header.num_layers, layers.size()));
  plan.results.assign(layers.size(), nullptr);
  plan.gate_scale_log2.assign(layers.size(), 0);
  for (const LayerResult& result : map.layers) {
    const std::int64_t index = result.layer_index;
    if (index < 0 || index >= map.header.num_layers)
      throw InputError(fmt::format("the map has a layer {}, the model has layers 0 to {}", index,
                                   map.header.num_layers - 1));
    const LayerInfo& layer = layers[static_cast<std::size_t>(index)];
    const auto neurons = static_cast<std::int64_t>(result.lists().num_neurons());
    if (result.name != layer.name || neurons != layer.num_neurons ||
        result.hidden_size != layer.hidden_size)
      throw InputError(fmt::format(
          "layer {}: the map has '{}' with {} neurons of width {}, the checkpoint '{}' with {} of "
          "width {}; was the map made of another checkpoint?",
          index, result.name, neurons, result.hidden_size, layer.name, layer.num_neurons,
          layer.hidden_size));
    plan.results[static_cast<std::size_t>(index)] = &result;
  }
  if (map.layers.empty()) throw InputError("the map has no layers");
}

std::int64_t round_up(std::int64_t value, std::int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

/// Sizes that all layers share; UsageError where they do not.
void measure_shape(ConversionPlan& plan) {
  ExpertShape& shape = plan.shape;
  std::int64_t largest = 0;
  std::int64_t smallest = INT64_MAX;
  std::int64_t shared = 0;
  bool first = true;
  for (const LayerResult* result : plan.results) {
    if (!result) continue;
    const NeuronLists& lists = result->lists();
    const auto experts = static_cast<std::int64_t>(lists.num_experts());
    const auto num_shared = static_cast<std::int64_t>(lists.num_shared());
    if (!first && (experts != shape.num_experts || num_shared != shape.num_shared))
      throw UsageError(fmt::format(
          "layer {} has {} experts and {} shared ones, the layers before it {} and {}; convert "
          "needs the same counts in all layers of a map (dense host excepted)",
          result->layer_index, experts, num_shared, shape.num_experts, shape.num_shared));
    first = false;
    shape.num_experts = experts;
    shape.num_shared = num_shared;
    for (std::size_t e = 0; e < lists.num_experts(); ++e) {
      const auto size = static_cast<std::int64_t>(lists.expert_members(e).size());
      largest = std::max(largest, size);
      smallest = std::min(smallest, size);
    }
    shared = std::max(shared, static_cast<std::int64_t>(lists.shared_members().size()));
  }
  if (smallest != largest && plan.config.uneven == "error")
    throw UsageError(
        fmt::format("experts have between {} and {} neurons and --uneven is error; "
                    "--uneven pad fills them with exact zero neurons",
                    smallest, largest));
  if (smallest != largest && plan.config.uneven == "ragged" && plan.config.host != "llama-moe")
    throw UsageError(
        fmt::format("experts have between {} and {} neurons, and no stock MoE host can carry "
                    "experts of unequal width; take --uneven pad",
                    smallest, largest));
  shape.expert_width = round_up(largest, plan.config.align);
  shape.shared_width = round_up(shared, plan.config.align);
  for (const LayerResult* result : plan.results)
    if (result)
      shape.padding += shape.num_experts * shape.expert_width + shape.shared_width -
                       static_cast<std::int64_t>(result->lists().members().size());
}

void choose_top_k(ConversionPlan& plan) {
  ExpertShape& shape = plan.shape;
  const std::int64_t from_map = plan.map->header.top_k > 0
                                    ? std::min(plan.map->header.top_k, shape.num_experts)
                                    : shape.num_experts;
  shape.top_k = plan.config.top_k.value_or(from_map);
  if (shape.top_k < 1 || shape.top_k > shape.num_experts)
    throw UsageError(fmt::format("--top-k {} is not between 1 and the {} experts of the map",
                                 shape.top_k, shape.num_experts));
}

/// Rule: 2^-m · std of the logits is nearest 2^-10, which keeps the selections and makes the chosen
/// experts weigh one. "robust": nearest 2^-6, for programs that compare scores less exactly.
int automatic_gate_scale(const std::string& rule, double logit_std) {
  const double target_log2 = rule == "robust" ? -6 : -10;
  constexpr int kLargest = 30;
  if (!(logit_std > 0) || !std::isfinite(logit_std)) return 0;
  const double m = std::round(std::log2(logit_std) - target_log2);
  return -static_cast<int>(std::clamp(m, 0.0, static_cast<double>(kLargest)));
}

bool is_rule(const std::string& gate_scale) {
  return gate_scale == "auto" || gate_scale == "robust";
}

int parse_gate_scale(const std::string& text) {
  return text == "1" ? 0 : -static_cast<int>(parse_integer(text.substr(3)).value());
}

void choose_gate_scales(ConversionPlan& plan) {
  for (std::size_t l = 0; l < plan.results.size(); ++l)
    if (plan.results[l])
      plan.gate_scale_log2[l] =
          is_rule(plan.config.gate_scale)
              ? automatic_gate_scale(plan.config.gate_scale, plan.results[l]->router.logit_std)
              : parse_gate_scale(plan.config.gate_scale);
}

void check_refit(const ConversionPlan& plan) {
  if (!plan.config.use_refit) return;
  if (plan.config.host == "dense")
    throw UsageError("--use-refit: the dense host keeps the dense function; take an MoE host");
  if (plan.map->header.refit_file.empty())
    throw UsageError(
        "--use-refit: the map has no refitted down projections; `moefy calibrate` makes them");
  if (!plan.refit) return;
  for (std::size_t l = 0; l < plan.results.size(); ++l) {
    if (!plan.results[l]) continue;
    const std::string& name = plan.source.layers[l].find(FfnRole::down)->tensor;
    const TensorSpec& spec = plan.source.tensors[plan.source.at(name)].spec;
    const TensorInfo* info = plan.refit->find(name);
    if (!info || info->dtype != spec.dtype || info->shape != spec.shape)
      throw InputError(fmt::format("{}: tensor '{}' is missing or has another shape or dtype",
                                   plan.refit->path().string(), name));
  }
}

void keep_refitted_originals(ConversionPlan& plan) {
  if (!plan.config.use_refit) return;
  for (std::size_t l = 0; l < plan.results.size(); ++l)
    if (plan.results[l])
      plan.originals.push_back(plan.source.at(plan.source.layers[l].find(FfnRole::down)->tensor));
  plan.notes.push_back(
      "The down projections are refitted: with all experts on, the output is no longer the dense "
      "model's. The dense ones are kept in moefy/originals.safetensors.");
  if (plan.shape.top_k != plan.map->header.top_k)
    plan.notes.push_back(
        fmt::format("warning: they were fitted for top-k {}, and this is top-k {}.",
                    plan.map->header.top_k, plan.shape.top_k));
}

void lay_out_shards(ConversionPlan& plan) {
  std::ranges::sort(plan.tensors, natural_less,
                    [](const OutputTensor& tensor) { return std::string_view(tensor.spec.name); });
  std::vector<TensorSpec> specs;
  specs.reserve(plan.tensors.size());
  for (const OutputTensor& tensor : plan.tensors) specs.push_back(tensor.spec);
  plan.shards = plan_shards(std::move(specs), plan.config.shard_size);
  plan.first_tensor.assign(1, 0);
  for (const ShardPlan::File& file : plan.shards.files)
    plan.first_tensor.push_back(plan.first_tensor.back() + file.tensors.size());
}

}  // namespace

bool ConversionPlan::shares_neurons() const {
  return std::ranges::any_of(
      results, [](const LayerResult* result) { return result && result->sharing.has_value(); });
}

std::vector<std::string> ConvertConfig::validate() const {
  std::vector<std::string> problems;
  const auto one_of = [&](const char* option, const std::string& value,
                          std::vector<std::string> names) {
    if (std::ranges::find(names, value) == names.end())
      problems.push_back(
          fmt::format("{} '{}' is unknown{}", option, value, suggestion(value, names)));
  };
  std::vector<std::string> hosts = host_names();
  hosts.insert(hosts.begin(), "auto");
  one_of("--host", host, hosts);
  one_of("--uneven", uneven, {"pad", "ragged", "error"});
  one_of("--layout", layout, {"classic", "fused"});
  if (top_k && *top_k < 1) problems.push_back(fmt::format("--top-k {} is below 1", *top_k));
  if (align < 1 || align > 4096)
    problems.push_back(fmt::format("--align {} is not between 1 and 4096", align));
  if (shard_size == 0) problems.push_back("--shard-size 0 leaves no room for a tensor");
  if (score_scale != "auto" && score_scale != "calibrated") {
    const std::optional<double> value = parse_real(score_scale);
    if (!value || !(*value > 0))
      problems.push_back(fmt::format(
          "--score-scale '{}' is not auto, calibrated or a number above 0", score_scale));
  }
  if (!is_rule(gate_scale) && gate_scale != "1") {
    const std::optional<std::int64_t> m =
        gate_scale.starts_with("2^-") ? parse_integer(gate_scale.substr(3)) : std::nullopt;
    if (!m || *m < 0 || *m > 30)
      problems.push_back(fmt::format(
          "--gate-scale '{}' is not auto, robust, 1 or 2^-m with m from 0 to 30 (2^-12)",
          gate_scale));
  }
  return problems;
}

std::shared_ptr<const ConversionPlan> make_plan(SourceModel source,
                                                std::shared_ptr<const ExpertMap> map,
                                                const ConvertConfig& config,
                                                std::shared_ptr<const SafetensorsFile> refit) {
  if (const std::vector<std::string> problems = config.validate(); !problems.empty())
    throw UsageError(problems);
  const auto plan = std::make_shared<ConversionPlan>();
  plan->source = std::move(source);
  plan->map = std::move(map);
  plan->config = config;
  plan->refit = std::move(refit);
  match_layers(*plan);
  check_refit(*plan);
  check_score_scale(*plan);
  if (config.host != "dense") {
    measure_shape(*plan);
    choose_top_k(*plan);
    choose_gate_scales(*plan);
  }
  const Family family = examine_family(plan->source);
  const std::unique_ptr<Host> host = choose_host(*plan, family);
  plan->host = host->name();
  plan->recipe = host->recipe();
  plan->top_k_editable = host->top_k_editable();
  if (plan->host_reason.empty()) plan->host_reason = host->reason(*plan);
  host->build(*plan, family);
  keep_refitted_originals(*plan);
  keep_rounded_originals(*plan);
  check_coverage(*plan);
  lay_out_shards(*plan);
  return plan;
}

std::shared_ptr<const ConversionPlan> plan_conversion(
    const Checkpoint& checkpoint, std::vector<LayerInfo> layers,
    std::shared_ptr<const ExpertMap> map, const ConvertConfig& config,
    std::shared_ptr<const SafetensorsFile> refit) {
  return make_plan(describe_source(checkpoint, std::move(layers)), std::move(map), config,
                   std::move(refit));
}

std::shared_ptr<const SafetensorsFile> open_refit(const ExpertMap& map,
                                                  const std::filesystem::path& map_file) {
  if (map.header.refit_file.empty())
    throw UsageError(fmt::format(
        "--use-refit: {} has no refitted down projections; `moefy calibrate` makes them",
        map_file.string()));
  const std::filesystem::path path = map_file.parent_path() / map.header.refit_file;
  if (!std::filesystem::exists(path))
    throw InputError(
        fmt::format("{}: missing; it belongs beside {}", path.string(), map_file.string()));
  auto file = std::make_shared<const SafetensorsFile>(path);
  if (content_fingerprint(*file) != map.header.refit_fingerprint)
    throw InputError(fmt::format("{}: not the file that {} was made with, or damaged",
                                 path.string(), map_file.string()));
  return file;
}

void check_map_belongs(const Checkpoint& checkpoint, const ExpertMap& map,
                       const std::string& map_file) {
  std::vector<Digest> layers;
  layers.reserve(map.layers.size());
  for (const LayerResult& layer : map.layers) layers.push_back(layer.fingerprint);
  if (source_fingerprint(checkpoint, layers) != map.header.source_fingerprint)
    throw InputError(fmt::format(
        "{} was made of another checkpoint or another config.json than {}; split this one again",
        map_file, (checkpoint.directory() / "config.json").string()));
}

const ShardPlan& shards_of(const ConversionPlan& plan) { return plan.shards; }

std::size_t num_layers(const ConversionPlan& plan) { return plan.source.layers.size(); }

}  // namespace moefy
