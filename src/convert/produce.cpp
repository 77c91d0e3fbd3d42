#include "produce.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "gather.hpp"
#include "lanes.hpp"
#include "moefy/core/error.hpp"
#include "moefy/core/matrix.hpp"

namespace moefy {

namespace {

/// A part and the output tensor that it fills.
struct Target {
  std::size_t tensor = 0;
  const NeuronPart* part = nullptr;
};

/// A piece of work: one output tensor without neurons, or all parts of one source tensor, so that
/// each is read once a shard.
struct Unit {
  std::size_t tensor = 0;
  std::string source;  ///< empty: no neurons
  std::vector<Target> targets;
};

/// Makes the bytes of units; its buffers are reused from one to the next.
class Producer {
 public:
  Producer(const ConversionPlan& plan, const Checkpoint& checkpoint, Refitted refitted,
           ByteSink& sink, const std::stop_token& stop)
      : plan_(plan), checkpoint_(checkpoint), refitted_(refitted), sink_(sink), stop_(stop) {}

  void run(const Unit& unit);

 private:
  void make(std::size_t tensor, const CopyPart& part);
  void make(std::size_t tensor, const ArithmeticPart& part);
  void make(std::size_t tensor, const RouterPart& part);
  void make(std::size_t tensor, const RouterOutputPart& part);
  void make(std::size_t tensor, const SelectionBiasPart& part);
  void make(std::size_t tensor, const FillPart& part);
  void from_rows(const std::string& source, std::span<const Target> targets);
  void from_columns(const std::string& source, std::span<const Target> targets);
  void rows_of_part(const Target& target, std::size_t row_bytes);
  void columns_of_part(const Target& target, std::size_t first_row, std::size_t num_rows,
                       std::size_t row_bytes);
  void scale(const Target& target, std::span<std::byte> values, std::size_t values_a_neuron,
             std::size_t first_neuron);

  void put_values(std::size_t tensor, std::span<const float> values);
  /// Of a source tensor as one vector.
  double length_of(std::size_t source) const;

  const LayerInfo& layer(const NeuronPart& part) const { return plan_.source.layers[part.layer]; }
  const FfnTensor& place(const NeuronPart& part) const { return *layer(part).find(part.role); }
  /// Of a source tensor with neurons: of the dense checkpoint, or of the refit file.
  void read(const std::string& source, const NeuronPart& part, std::uint64_t offset,
            std::span<std::byte> out) const;

  const ConversionPlan& plan_;
  const Checkpoint& checkpoint_;
  Refitted refitted_;
  ByteSink& sink_;
  const std::stop_token& stop_;
  AlignedBuffer<std::byte> source_;
  AlignedBuffer<std::byte> block_;
  std::map<std::pair<DType, int>, PowerOfTwoScale> scales_;
};

void Producer::run(const Unit& unit) {
  if (!unit.targets.empty()) {
    if (place(*unit.targets.front().part).neuron_first) return from_rows(unit.source, unit.targets);
    return from_columns(unit.source, unit.targets);
  }
  std::visit(
      [&](const auto& part) {
        if constexpr (!std::is_same_v<std::decay_t<decltype(part)>, std::vector<NeuronPart>>)
          make(unit.tensor, part);
      },
      plan_.tensors[unit.tensor].recipe);
}

void Producer::make(std::size_t tensor, const CopyPart& part) {
  const TensorInfo& info = checkpoint_.at(plan_.source.tensors[part.source].spec.name);
  block_.resize(kBlockBytes);
  for (std::uint64_t done = 0; done < part.num_bytes;) {
    stop_point(stop_);
    const std::size_t count =
        static_cast<std::size_t>(std::min<std::uint64_t>(kBlockBytes, part.num_bytes - done));
    const std::span<std::byte> bytes(block_.data(), count);
    checkpoint_.read(info, part.offset + done, bytes);
    sink_.put(tensor, done, bytes);
    done += count;
  }
}

void Producer::make(std::size_t tensor, const ArithmeticPart& part) {
  const TensorInfo& info = checkpoint_.at(plan_.source.tensors[part.source].spec.name);
  constexpr std::size_t kValues = kBlockBytes / sizeof(float);
  std::vector<float> values;
  block_.resize(kBlockBytes);
  for (std::uint64_t done = 0; done < info.num_bytes;) {
    stop_point(stop_);
    const std::size_t count = static_cast<std::size_t>(
        std::min<std::uint64_t>(kValues * size_of(info.dtype), info.num_bytes - done));
    const std::span<std::byte> bytes(block_.data(), count);
    checkpoint_.read(info, done, bytes);
    values.resize(count / size_of(info.dtype));
    widen(info.dtype, bytes, values);
    for (float& value : values) value = value * part.multiply + part.add;
    narrow(info.dtype, values, bytes);
    sink_.put(tensor, done, bytes);
    done += count;
  }
}

void Producer::make(std::size_t tensor, const RouterPart& part) {
  const std::span<const float> rows = plan_.results[part.layer]->router.weight.values();
  std::vector<float> values(rows.begin(), rows.end());
  for (float& value : values) value = std::ldexp(value, plan_.gate_scale_log2[part.layer]);
  if (part.divided_by_length_of) {
    const double length = length_of(*part.divided_by_length_of);
    for (float& value : values) value = static_cast<float>(static_cast<double>(value) / length);
  }
  put_values(tensor, values);
}

void Producer::make(std::size_t tensor, const RouterOutputPart& part) {
  put_values(tensor, plan_.results[part.layer]->router.output.values());
}

/// The values in the tensor's dtype.
void Producer::put_values(std::size_t tensor, std::span<const float> values) {
  const TensorSpec& spec = plan_.tensors[tensor].spec;
  std::vector<std::byte> bytes(spec.num_bytes());
  narrow(spec.dtype, values, bytes);
  sink_.put(tensor, 0, bytes);
}

double Producer::length_of(std::size_t source) const {
  const std::string& name = plan_.source.tensors[source].spec.name;
  const TensorInfo& info = checkpoint_.at(name);
  std::vector<std::byte> bytes(info.num_bytes);
  checkpoint_.read(info, 0, bytes);
  std::vector<float> values(bytes.size() / size_of(info.dtype));
  widen(info.dtype, bytes, values);
  double squares = 0;
  for (const float value : values) squares += static_cast<double>(value) * value;
  if (!(squares > 0) || !std::isfinite(squares))
    throw InputError(
        fmt::format("tensor '{}': zero or not finite, so that the router that follows "
                    "it has no scale",
                    name));
  return std::sqrt(squares);
}

void Producer::make(std::size_t tensor, const SelectionBiasPart& part) {
  std::vector<float> values = plan_.results[part.layer]->router.bias;
  for (float& value : values) value = std::ldexp(value, plan_.gate_scale_log2[part.layer] - 2);
  sink_.put(tensor, 0, std::as_bytes(std::span(values)));
}

void Producer::make(std::size_t tensor, const FillPart& part) {
  const TensorSpec& spec = plan_.tensors[tensor].spec;
  put_values(tensor, std::vector<float>(spec.num_bytes() / size_of(spec.dtype), part.value));
}

void Producer::read(const std::string& source, const NeuronPart& part, std::uint64_t offset,
                    std::span<std::byte> out) const {
  if (!plan_.is_refitted(part.role) || refitted_ == Refitted::as_dense)
    return checkpoint_.read(checkpoint_.at(source), offset, out);
  require(plan_.refit != nullptr, "the refit file is open");
  plan_.refit->read(*plan_.refit->find(source), offset, out);
}

void Producer::from_rows(const std::string& source, std::span<const Target> targets) {
  const TensorInfo& info = checkpoint_.at(source);
  source_.resize(info.num_bytes);
  for (std::uint64_t done = 0; done < info.num_bytes; done += kBlockBytes) {
    stop_point(stop_);
    read(source, *targets.front().part, done,
         source_.span().subspan(done, std::min<std::uint64_t>(kBlockBytes, info.num_bytes - done)));
  }
  const std::size_t row_bytes = info.num_bytes / static_cast<std::size_t>(info.shape.at(0));
  for (const Target& target : targets) rows_of_part(target, row_bytes);
}

void Producer::rows_of_part(const Target& target, std::size_t row_bytes) {
  const NeuronPart& part = *target.part;
  const FfnTensor& from = place(part);
  const std::size_t size = size_of(from.dtype);
  const auto width = static_cast<std::size_t>(part.width);
  const std::size_t rows_a_block = std::max<std::size_t>(1, kBlockBytes / row_bytes);
  const std::span<const std::byte> rows =
      source_.span().subspan(static_cast<std::size_t>(from.slice_begin) * row_bytes);
  block_.resize(std::min(rows_a_block, width) * row_bytes);
  for (std::size_t row = 0; row < width; row += rows_a_block) {
    stop_point(stop_);
    const std::size_t count = std::min(rows_a_block, width - row);
    const std::size_t real =
        row < part.neurons.size() ? std::min(count, part.neurons.size() - row) : 0;
    const std::span<std::byte> bytes(block_.data(), count * row_bytes);
    if (real > 0) gather_rows(rows, row_bytes, part.neurons.subspan(row, real), bytes);
    std::ranges::fill(bytes.subspan(real * row_bytes), std::byte{0});
    scale(target, bytes.first(real * row_bytes), row_bytes / size, row);
    sink_.put(target.tensor, static_cast<std::uint64_t>(part.begin) * size + row * row_bytes,
              bytes);
  }
}

void Producer::from_columns(const std::string& source, std::span<const Target> targets) {
  const TensorInfo& info = checkpoint_.at(source);
  const auto num_rows = static_cast<std::size_t>(info.shape.at(0));
  const std::size_t row_bytes = info.num_bytes / num_rows;
  const std::size_t rows_a_block = std::clamp<std::size_t>(kBlockBytes / row_bytes, 1, num_rows);
  source_.resize(rows_a_block * row_bytes);
  for (std::size_t row = 0; row < num_rows; row += rows_a_block) {
    stop_point(stop_);
    const std::size_t count = std::min(rows_a_block, num_rows - row);
    read(source, *targets.front().part, row * row_bytes, {source_.data(), count * row_bytes});
    for (const Target& target : targets) columns_of_part(target, row, count, row_bytes);
  }
}

void Producer::columns_of_part(const Target& target, std::size_t first_row, std::size_t num_rows,
                               std::size_t row_bytes) {
  const NeuronPart& part = *target.part;
  if (part.width == 0) return;  // a tensor without elements
  const FfnTensor& from = place(part);
  const std::size_t size = size_of(from.dtype);
  const std::size_t part_bytes = static_cast<std::size_t>(part.width) * size;
  const std::size_t real_bytes = part.neurons.size() * size;
  block_.resize(num_rows * part_bytes);
  for (std::size_t row = 0; row < num_rows; ++row) {
    std::byte* out = block_.data() + row * part_bytes;
    gather_elements(
        source_.data() + row * row_bytes + static_cast<std::size_t>(from.slice_begin) * size, size,
        part.neurons, out);
    std::fill(out + real_bytes, out + part_bytes, std::byte{0});
  }
  scale(target, block_.span(), 1, 0);
  const std::uint64_t begin = static_cast<std::uint64_t>(part.begin) * size;
  if (part.stride == part.width) {
    sink_.put(target.tensor, begin + first_row * part_bytes, block_.span());
    return;
  }
  for (std::size_t row = 0; row < num_rows; ++row)
    sink_.put(target.tensor,
              begin + (first_row + row) * static_cast<std::uint64_t>(part.stride) * size,
              {block_.data() + row * part_bytes, part_bytes});
}

void Producer::scale(const Target& target, std::span<std::byte> values, std::size_t values_a_neuron,
                     std::size_t first_neuron) {
  const NeuronPart& part = *target.part;
  if (part.scale() == 1) return;
  const DType dtype = place(part).dtype;
  const std::ptrdiff_t bad =
      part.is_exact() ? scales_.try_emplace({dtype, part.scale_log2}, dtype, part.scale_log2)
                            .first->second.apply(values)
                      : multiply_rounded(dtype, part.scale(), values);
  if (bad < 0) return;
  // Rows hold values_a_neuron values of one neuron; columns one value of each neuron in turn.
  const auto at = static_cast<std::size_t>(bad);
  const std::size_t position = place(part).neuron_first ? first_neuron + at / values_a_neuron
                                                        : at % static_cast<std::size_t>(part.width);
  throw InputError(fmt::format(
      "tensor '{}', neuron {}: a weight times {:g} does not fit {}; host '{}' needs this factor. "
      "Convert the checkpoint to bf16 or f32 first, or take fewer experts",
      place(part).tensor, part.neurons[position], part.scale(), name_of(dtype), plan_.host));
}

std::vector<Unit> units_of(const ConversionPlan& plan, std::size_t first, std::size_t end,
                           Refitted refitted) {
  std::vector<Unit> units;
  std::map<std::string, std::size_t> unit_of;
  for (std::size_t tensor = first; tensor < end; ++tensor) {
    const auto* parts = std::get_if<std::vector<NeuronPart>>(&plan.tensors[tensor].recipe);
    if (!parts) {
      if (refitted != Refitted::as_dense) units.push_back({tensor, "", {}});
      continue;
    }
    for (const NeuronPart& part : *parts) {
      const bool is_refitted = plan.is_refitted(part.role);
      if (refitted == (is_refitted ? Refitted::left_out : Refitted::as_dense)) continue;
      const std::string& source = plan.source.layers[part.layer].find(part.role)->tensor;
      const auto [entry, is_new] = unit_of.try_emplace(source, units.size());
      if (is_new) units.push_back({tensor, source, {}});
      units[entry->second].targets.push_back({tensor, &part});
    }
  }
  return units;
}

/// Whether two units write to one output tensor, as in fused layouts: a sink counts by tensor.
bool share_tensors(std::span<const Unit> units) {
  std::map<std::size_t, std::size_t> unit_of;
  for (std::size_t i = 0; i < units.size(); ++i)
    for (const Target& target : units[i].targets)
      if (unit_of.try_emplace(target.tensor, i).first->second != i) return true;
  return false;
}

}  // namespace

void stop_point(const std::stop_token& stop) {
  if (stop.stop_requested()) throw Interrupted("stopped by request");
}

std::size_t concurrent_tensors(const ConversionPlan& plan) {
  std::uint64_t layer_bytes = 0;
  std::uint64_t tensor_bytes = 1;
  for (const LayerInfo& layer : plan.source.layers) {
    layer_bytes = std::max(layer_bytes, layer.file_bytes());
    for (const FfnTensor& tensor : layer.tensors)
      tensor_bytes = std::max(tensor_bytes,
                              plan.source.tensors[plan.source.at(tensor.tensor)].spec.num_bytes());
  }
  return std::max<std::size_t>(1, layer_bytes / tensor_bytes);
}

void produce_shard(const ConversionPlan& plan, const Checkpoint& checkpoint, std::size_t shard,
                   Refitted refitted, ByteSink& sink, ThreadPool& pool,
                   const std::stop_token& stop) {
  const std::vector<Unit> units =
      units_of(plan, plan.first_tensor[shard], plan.first_tensor[shard + 1], refitted);
  const std::size_t lanes = share_tensors(units) ? 1 : concurrent_tensors(plan);
  run_lanes(pool, lanes, units.size(), [&] {
    return [&, producer = Producer(plan, checkpoint, refitted, sink, stop)](std::size_t i) mutable {
      producer.run(units[i]);
    };
  });
}

std::string place_of(const ConversionPlan& plan, std::size_t tensor, std::uint64_t byte) {
  const auto* parts = std::get_if<std::vector<NeuronPart>>(&plan.tensors[tensor].recipe);
  if (!parts) return "";
  const TensorSpec& spec = plan.tensors[tensor].spec;
  const auto element = static_cast<std::int64_t>(byte / size_of(spec.dtype));
  for (const NeuronPart& part : *parts) {
    const LayerInfo& layer = plan.source.layers[part.layer];
    const bool rows = layer.find(part.role)->neuron_first;
    const std::int64_t inside = element - part.begin;
    if (inside < 0) continue;
    std::int64_t position = 0;
    if (rows) {
      const bool is_bias = part.role == FfnRole::gate_bias || part.role == FfnRole::up_bias;
      position = inside / (is_bias ? 1 : layer.hidden_size);
    } else {
      position = inside % part.stride;
      if (inside / part.stride >= layer.hidden_size) continue;
    }
    if (position >= part.width) continue;
    std::string text = fmt::format("layer {}", layer.index);
    if (plan.is_moe())
      text += is_shared_list(part.list) ? ", shared expert" : fmt::format(", expert {}", part.list);
    if (position >= static_cast<std::int64_t>(part.neurons.size()))
      return text + fmt::format(", padding neuron {}", position);
    return text + fmt::format(", neuron {}", part.neurons[static_cast<std::size_t>(position)]);
  }
  return "";
}

}  // namespace moefy
