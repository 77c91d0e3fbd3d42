#include "layout.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <string_view>

#include "moefy/core/error.hpp"

namespace moefy {

namespace {

void copy_as(ConversionPlan& plan, std::size_t source, const std::string& name) {
  TensorSpec spec = plan.source.tensors[source].spec;
  spec.name = name;
  const std::uint64_t bytes = spec.num_bytes();
  plan.tensors.push_back({std::move(spec), CopyPart{source, 0, bytes}});
}

/// qkv_proj [q + k + v, H] as three tensors of contiguous rows. The widths of k and v are equal.
void split_qkv(ConversionPlan& plan, std::size_t source) {
  const TensorSpec& spec = plan.source.tensors[source].spec;
  const std::string prefix =
      spec.name.substr(0, spec.name.size() - std::string("qkv_proj.weight").size());
  const std::size_t output = plan.source.at(prefix + "o_proj.weight");
  const std::int64_t q_rows = plan.source.tensors[output].spec.shape.at(1);
  const std::int64_t kv_rows = (spec.shape.at(0) - q_rows) / 2;
  const std::uint64_t row_bytes = spec.num_bytes() / static_cast<std::uint64_t>(spec.shape.at(0));
  std::uint64_t offset = 0;
  for (const auto& [name, rows] :
       {std::pair{"q_proj.weight", q_rows}, std::pair{"k_proj.weight", kv_rows},
        std::pair{"v_proj.weight", kv_rows}}) {
    const std::uint64_t bytes = static_cast<std::uint64_t>(rows) * row_bytes;
    plan.tensors.push_back(
        {{prefix + name, spec.dtype, {rows, spec.shape.at(1)}}, CopyPart{source, offset, bytes}});
    offset += bytes;
  }
}

void change(ConversionPlan& plan, std::size_t source, float multiply, float add) {
  plan.tensors.push_back({plan.source.tensors[source].spec, ArithmeticPart{source, multiply, add}});
  plan.originals.push_back(source);
}

NeuronPart neuron_part(const ConversionPlan& plan, std::size_t layer, FfnRole role,
                       std::int64_t list, std::span<const std::int32_t> neurons,
                       std::int64_t width) {
  NeuronPart part;
  part.layer = layer;
  part.role = role;
  part.list = list;
  part.neurons = neurons;
  part.width = width;
  part.stride = width;
  const FfnTensor* from = plan.source.layers[layer].find(role);
  require(from && from->neuron_first == (role != FfnRole::down),
          "MoE hosts take gated layers with linear weights");
  return part;
}

TensorSpec part_spec(const ConversionPlan& plan, std::string name, const NeuronPart& part) {
  const LayerInfo& layer = plan.source.layers[part.layer];
  std::vector<std::int64_t> shape{part.width, layer.hidden_size};
  if (part.role == FfnRole::down) std::swap(shape[0], shape[1]);
  return {std::move(name), layer.find(part.role)->dtype, std::move(shape)};
}

void add_part(ConversionPlan& plan, std::string name, const NeuronPart& part) {
  plan.tensors.push_back({part_spec(plan, std::move(name), part), std::vector{part}});
}

/// The host's factor of the routed experts, and what is asked for beside it.
void scale_routed(const ConversionPlan& plan, NeuronPart& down) {
  const double factor = plan.folded_score(down.layer);
  const bool is_exact = is_exact_factor(factor);
  down.scale_log2 = plan.routed_scale_log2 + (is_exact ? std::ilogb(factor) : 0);
  down.factor = is_exact ? 1 : factor;
}

void add_fused_experts(ConversionPlan& plan, std::size_t layer, const ExpertNames& names) {
  const ExpertShape& shape = plan.shape;
  const LayerInfo& info = plan.source.layers[layer];
  const NeuronLists& lists = plan.results[layer]->lists();
  const std::int64_t block = shape.expert_width * info.hidden_size;
  std::vector<NeuronPart> gate_up;
  std::vector<NeuronPart> down;
  for (std::int64_t e = 0; e < shape.num_experts; ++e) {
    const auto neurons = lists.expert_members(static_cast<std::size_t>(e));
    const auto part = [&](FfnRole role) {
      return neuron_part(plan, layer, role, e, neurons, shape.expert_width);
    };
    gate_up.push_back(part(FfnRole::gate));
    gate_up.back().begin = 2 * e * block;
    gate_up.push_back(part(FfnRole::up));
    gate_up.back().begin = (2 * e + 1) * block;
    down.push_back(part(FfnRole::down));
    down.back().begin = e * block;
    scale_routed(plan, down.back());
  }
  const std::string prefix = layer_prefix(plan, layer);
  const DType dtype = info.find(FfnRole::up)->dtype;
  plan.tensors.push_back({{prefix + names.fused_gate_up,
                           dtype,
                           {shape.num_experts, 2 * shape.expert_width, info.hidden_size}},
                          std::move(gate_up)});
  plan.tensors.push_back({{prefix + names.fused_down,
                           info.find(FfnRole::down)->dtype,
                           {shape.num_experts, info.hidden_size, shape.expert_width}},
                          std::move(down)});
}

}  // namespace

const ExpertNames& qwen_expert_names() {
  static const ExpertNames names = {"mlp.gate.weight",      "mlp.experts",
                                    "gate_proj.weight",     "up_proj.weight",
                                    "down_proj.weight",     "mlp.experts.gate_up_proj",
                                    "mlp.experts.down_proj"};
  return names;
}

std::string layer_prefix(const ConversionPlan& plan, std::size_t layer) {
  const std::string& name = plan.source.layers[layer].name;
  constexpr std::string_view kSuffix = "mlp";
  require(name.ends_with(kSuffix), "MoE hosts take layers named model.layers.N.mlp");
  return name.substr(0, name.size() - kSuffix.size());
}

void add_backbone(ConversionPlan& plan, const Family& family, Embeddings embeddings) {
  std::vector<bool> is_ffn(plan.source.tensors.size(), false);
  for (const LayerInfo& layer : plan.source.layers)
    for (const FfnTensor& tensor : layer.tensors) is_ffn[plan.source.at(tensor.tensor)] = true;
  for (std::size_t i = 0; i < is_ffn.size(); ++i) {
    if (is_ffn[i]) continue;
    const std::string name = plan.source.tensors[i].spec.name;
    if (family.fused_qkv && name.ends_with(".qkv_proj.weight")) {
      split_qkv(plan, i);
    } else if (family.offset_norms && name.ends_with("norm.weight")) {
      change(plan, i, 1, 1);
    } else if (family.offset_norms && name == "model.embed_tokens.weight" &&
               embeddings == Embeddings::multiplied_in_the_file) {
      // The head of the tied source reads the plain embedding.
      change(plan, i, std::sqrt(static_cast<float>(family.hidden_size)), 0);
      if (plan.source.find("lm_head.weight") < 0) copy_as(plan, i, "lm_head.weight");
    } else {
      copy_as(plan, i, name);
    }
  }
}

void add_experts(ConversionPlan& plan, std::size_t layer, const ExpertNames& names) {
  const ExpertShape& shape = plan.shape;
  const LayerInfo& info = plan.source.layers[layer];
  const std::string prefix = layer_prefix(plan, layer);
  plan.tensors.push_back({{prefix + names.router,
                           info.find(FfnRole::up)->dtype,
                           {shape.num_experts, info.hidden_size}},
                          RouterPart{layer, {}}});
  if (plan.config.layout == "fused" || names.experts.empty())
    return add_fused_experts(plan, layer, names);
  const NeuronLists& lists = plan.results[layer]->lists();
  for (std::int64_t e = 0; e < shape.num_experts; ++e) {
    const std::string expert = fmt::format("{}{}.{}.", prefix, names.experts, e);
    add_list(plan, layer, e, {expert + names.gate, expert + names.up, expert + names.down},
             lists.expert_members(static_cast<std::size_t>(e)), shape.expert_width);
  }
}

void add_list(ConversionPlan& plan, std::size_t layer, std::int64_t list, const GatedNames& names,
              std::span<const std::int32_t> neurons, std::int64_t width) {
  const auto part = [&](FfnRole role) {
    return neuron_part(plan, layer, role, list, neurons, width);
  };
  add_part(plan, names.gate, part(FfnRole::gate));
  add_part(plan, names.up, part(FfnRole::up));
  NeuronPart down = part(FfnRole::down);
  if (!is_shared_list(list)) scale_routed(plan, down);
  add_part(plan, names.down, down);
}

void add_gated(ConversionPlan& plan, std::size_t layer, const std::string& prefix,
               std::span<const std::int32_t> neurons, std::int64_t width, int down_scale_log2) {
  const auto part = [&](FfnRole role) {
    return neuron_part(plan, layer, role, kSharedList, neurons, width);
  };
  add_part(plan, prefix + "gate_proj.weight", part(FfnRole::gate));
  add_part(plan, prefix + "up_proj.weight", part(FfnRole::up));
  NeuronPart down = part(FfnRole::down);
  down.scale_log2 = down_scale_log2;
  add_part(plan, prefix + "down_proj.weight", down);
}

void add_packed_gated(ConversionPlan& plan, std::size_t layer, const std::string& gate_up_name,
                      const std::string& down_name, std::span<const std::int32_t> neurons,
                      std::int64_t width) {
  const auto part = [&](FfnRole role) {
    return neuron_part(plan, layer, role, kSharedList, neurons, width);
  };
  const LayerInfo& info = plan.source.layers[layer];
  std::vector<NeuronPart> gate_up{part(FfnRole::gate), part(FfnRole::up)};
  gate_up[1].begin = width * info.hidden_size;
  plan.tensors.push_back(
      {{gate_up_name, info.find(FfnRole::up)->dtype, {2 * width, info.hidden_size}},
       std::move(gate_up)});
  add_part(plan, down_name, part(FfnRole::down));
}

void add_dense_layer(ConversionPlan& plan, std::size_t layer) {
  for (const FfnTensor& tensor : plan.source.layers[layer].tensors) {
    const std::size_t source = plan.source.at(tensor.tensor);
    copy_as(plan, source, tensor.tensor);
  }
}

}  // namespace moefy
