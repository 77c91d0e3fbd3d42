#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <mutex>
#include <set>

#include "file_sink.hpp"
#include "gather.hpp"
#include "lanes.hpp"
#include "moefy/convert/convert.hpp"
#include "moefy/core/error.hpp"
#include "moefy/core/matrix.hpp"
#include "moefy/core/text.hpp"
#include "originals.hpp"
#include "plan.hpp"
#include "produce.hpp"

namespace moefy {

namespace {

/// Where the bytes of one source tensor went.
struct Origin {
  std::vector<std::size_t> copies;  ///< output tensors with a CopyPart of it
  std::vector<std::pair<std::size_t, const NeuronPart*>> parts;
  bool original = false;
};

std::vector<Origin> invert(const ConversionPlan& plan) {
  std::vector<Origin> origins(plan.source.tensors.size());
  for (std::size_t tensor = 0; tensor < plan.tensors.size(); ++tensor) {
    const Recipe& recipe = plan.tensors[tensor].recipe;
    if (const auto* copy = std::get_if<CopyPart>(&recipe))
      origins[copy->source].copies.push_back(tensor);
    if (const auto* parts = std::get_if<std::vector<NeuronPart>>(&recipe))
      for (const NeuronPart& part : *parts) {
        const FfnTensor& from = *plan.source.layers[part.layer].find(part.role);
        origins[plan.source.at(from.tensor)].parts.emplace_back(tensor, &part);
      }
  }
  for (const std::size_t tensor : plan.originals) origins[tensor].original = true;
  return origins;
}

/// Puts the tensors of one source file together again; `sink` counts them by place in the file.
class Restorer {
 public:
  Restorer(const ConversionPlan& plan, const Checkpoint& converted, ByteSink& sink,
           const std::stop_token& stop)
      : plan_(plan),
        converted_(converted),
        originals_(plan, converted.directory()),
        sink_(sink),
        stop_(stop) {}

  void run(std::size_t place, std::size_t source, const Origin& origin);

 private:
  void from_original(std::size_t place, std::size_t source);
  void from_copies(std::size_t place, const Origin& origin);
  void from_rows(std::size_t place, std::size_t source, const Origin& origin);
  void from_columns(std::size_t place, std::size_t source, const Origin& origin);
  /// Reads from an output tensor, after checking that it is the planned one.
  void read(std::size_t tensor, std::uint64_t offset, std::span<std::byte> out) const;
  void unscale(const NeuronPart& part, DType dtype, std::span<std::byte> bytes);

  const ConversionPlan& plan_;
  const Checkpoint& converted_;
  const Originals originals_;
  ByteSink& sink_;
  const std::stop_token& stop_;
  AlignedBuffer<std::byte> target_;
  AlignedBuffer<std::byte> block_;
  std::map<std::pair<DType, int>, PowerOfTwoScale> scales_;
};

void Restorer::run(std::size_t place, std::size_t source, const Origin& origin) {
  if (origin.original) return from_original(place, source);
  if (origin.parts.empty()) return from_copies(place, origin);
  const NeuronPart& part = *origin.parts.front().second;
  if (plan_.source.layers[part.layer].find(part.role)->neuron_first)
    from_rows(place, source, origin);
  else
    from_columns(place, source, origin);
}

void Restorer::read(std::size_t tensor, std::uint64_t offset, std::span<std::byte> out) const {
  const TensorSpec& spec = plan_.tensors[tensor].spec;
  const TensorInfo& info = converted_.at(spec.name);
  if (info.dtype != spec.dtype || info.shape != spec.shape)
    throw InputError(
        fmt::format("{}: tensor '{}' has another dtype or shape than the manifest "
                    "says",
                    converted_.directory().string(), spec.name));
  converted_.read(info, offset, out);
}

void Restorer::unscale(const NeuronPart& part, DType dtype, std::span<std::byte> bytes) {
  if (part.scale_log2 == 0) return;
  scales_.try_emplace({dtype, -part.scale_log2}, dtype, -part.scale_log2)
      .first->second.apply(bytes);
}

void Restorer::from_original(std::size_t place, std::size_t source) {
  const std::uint64_t total = plan_.source.tensors[source].spec.num_bytes();
  block_.resize(kBlockBytes);
  for (std::uint64_t done = 0; done < total; done += kBlockBytes) {
    stop_point(stop_);
    const std::span<std::byte> bytes =
        block_.span().first(std::min<std::uint64_t>(kBlockBytes, total - done));
    originals_.read(source, done, bytes);
    sink_.put(place, done, bytes);
  }
}

void Restorer::from_copies(std::size_t place, const Origin& origin) {
  block_.resize(kBlockBytes);
  for (const std::size_t tensor : origin.copies) {
    const auto& copy = std::get<CopyPart>(plan_.tensors[tensor].recipe);
    for (std::uint64_t done = 0; done < copy.num_bytes; done += kBlockBytes) {
      stop_point(stop_);
      const std::span<std::byte> bytes =
          block_.span().first(std::min<std::uint64_t>(kBlockBytes, copy.num_bytes - done));
      read(tensor, done, bytes);
      sink_.put(place, copy.offset + done, bytes);
    }
  }
}

void Restorer::from_rows(std::size_t place, std::size_t source, const Origin& origin) {
  const TensorSpec& spec = plan_.source.tensors[source].spec;
  const std::size_t size = size_of(spec.dtype);
  target_.resize(spec.num_bytes());
  const std::size_t row_bytes = target_.size() / static_cast<std::size_t>(spec.shape.at(0));
  for (const auto& [tensor, part] : origin.parts) {
    const FfnTensor& from = *plan_.source.layers[part->layer].find(part->role);
    const std::span<std::byte> rows =
        target_.span().subspan(static_cast<std::size_t>(from.slice_begin) * row_bytes);
    const std::size_t rows_a_block = std::max<std::size_t>(1, kBlockBytes / row_bytes);
    for (std::size_t row = 0; row < part->neurons.size(); row += rows_a_block) {
      stop_point(stop_);
      const std::size_t count = std::min(rows_a_block, part->neurons.size() - row);
      block_.resize(count * row_bytes);
      read(tensor, static_cast<std::uint64_t>(part->begin) * size + row * row_bytes, block_.span());
      unscale(*part, spec.dtype, block_.span());
      scatter_rows(block_.span(), row_bytes, part->neurons.subspan(row, count), rows);
    }
  }
  for (std::size_t done = 0; done < target_.size(); done += kBlockBytes)
    sink_.put(place, done,
              target_.span().subspan(done, std::min(kBlockBytes, target_.size() - done)));
}

void Restorer::from_columns(std::size_t place, std::size_t source, const Origin& origin) {
  const TensorSpec& spec = plan_.source.tensors[source].spec;
  const std::size_t size = size_of(spec.dtype);
  const auto num_rows = static_cast<std::size_t>(spec.shape.at(0));
  const std::size_t row_bytes = spec.num_bytes() / num_rows;
  const std::size_t rows_a_block = std::clamp<std::size_t>(kBlockBytes / row_bytes, 1, num_rows);
  target_.resize(rows_a_block * row_bytes);
  for (std::size_t row = 0; row < num_rows; row += rows_a_block) {
    stop_point(stop_);
    const std::size_t count = std::min(rows_a_block, num_rows - row);
    for (const auto& [tensor, part] : origin.parts) {
      if (part->width == 0) continue;  // a tensor without elements
      const FfnTensor& from = *plan_.source.layers[part->layer].find(part->role);
      // Rows of the output tensor lie `stride` apart and are read in one piece.
      const std::size_t stride_bytes = static_cast<std::size_t>(part->stride) * size;
      const std::size_t part_bytes = static_cast<std::size_t>(part->width) * size;
      block_.resize((count - 1) * stride_bytes + part_bytes);
      read(tensor, static_cast<std::uint64_t>(part->begin) * size + row * stride_bytes,
           block_.span());
      unscale(*part, spec.dtype, block_.span());
      for (std::size_t i = 0; i < count; ++i)
        scatter_elements(
            block_.data() + i * stride_bytes, size, part->neurons,
            target_.data() + i * row_bytes + static_cast<std::size_t>(from.slice_begin) * size);
    }
    sink_.put(place, row * row_bytes, {target_.data(), count * row_bytes});
  }
}

/// All tensors of one source file, several threads at a time.
void restore_tensors(const ConversionPlan& plan, const Checkpoint& converted, std::size_t shard,
                     ByteSink& sink, ThreadPool& pool, const std::stop_token& stop) {
  const std::vector<std::size_t>& tensors = plan.source.files.at(shard).tensors;
  const std::vector<Origin> origins = invert(plan);
  run_lanes(pool, concurrent_tensors(plan), tensors.size(), [&] {
    return [&, restorer = Restorer(plan, converted, sink, stop)](std::size_t place) mutable {
      restorer.run(place, tensors[place], origins[tensors[place]]);
    };
  });
}

/// Compares what passes with a checkpoint that is there.
class ThereSink final : public ByteSink {
 public:
  ThereSink(const Checkpoint& there, std::span<const TensorSpec> tensors)
      : there_(there), tensors_(tensors) {}

  void put(std::size_t place, std::uint64_t offset, std::span<const std::byte> bytes) override {
    thread_local std::vector<std::byte> found;
    found.resize(bytes.size());
    there_.read(there_.at(tensors_[place].name), offset, found);
    if (std::memcmp(found.data(), bytes.data(), bytes.size()) == 0) return;
    const std::lock_guard lock(mutex_);
    differing_.insert(place);
  }

  std::vector<std::string> differences() const {
    std::vector<std::string> texts;
    for (const std::size_t place : differing_)
      texts.push_back(fmt::format("tensor '{}' has other values", tensors_[place].name));
    return texts;
  }

 private:
  const Checkpoint& there_;
  std::span<const TensorSpec> tensors_;
  std::mutex mutex_;
  std::set<std::size_t> differing_;  ///< places in the file
};

}  // namespace

void require_restorable(const ConversionPlan& plan) {
  constexpr std::size_t kShownLayers = 4;
  constexpr std::size_t kShownNeurons = 16;
  std::vector<std::string> lines;
  std::size_t num_layers = 0;
  for (std::size_t l = 0; l < plan.results.size(); ++l) {
    if (!plan.results[l]) continue;
    const std::vector<std::int32_t> omitted = omitted_neurons(plan.results[l]->lists());
    if (omitted.empty() || ++num_layers > kShownLayers) continue;
    const LayerInfo& layer = plan.source.layers[l];
    lines.push_back(fmt::format("layer {} ('{}'): neurons {}", layer.index, layer.name,
                                first_numbers(omitted, kShownNeurons)));
  }
  if (num_layers == 0) return;
  if (num_layers > kShownLayers)
    lines.push_back(fmt::format("and {} more layers", num_layers - kShownLayers));
  throw InputError("the dense model cannot be restored, because neurons of it were left out: " +
                   join_text(lines, "; "));
}

ShardPlan source_shards(const ConversionPlan& plan) {
  ShardPlan shards;
  for (const SourceModel::File& file : plan.source.files) {
    shards.files.push_back({file.name, {}});
    for (const std::size_t tensor : file.tensors) {
      shards.files.back().tensors.push_back(plan.source.tensors[tensor].spec);
      shards.total_bytes += shards.files.back().tensors.back().num_bytes();
    }
  }
  return shards;
}

void restore_shard(const ConversionPlan& plan, const Checkpoint& converted, std::size_t shard,
                   const std::filesystem::path& directory, ThreadPool& pool, std::stop_token stop) {
  const SourceModel::File& file = plan.source.files.at(shard);
  const ShardPlan shards = source_shards(plan);
  SafetensorsWriter writer(directory / file.name, shards.files[shard].tensors, file.metadata);
  FileSink sink(writer, 0);
  restore_tensors(plan, converted, shard, sink, pool, stop);
  writer.finish();
}

std::vector<std::string> compare_restored_structure(const ConversionPlan& plan,
                                                    const Checkpoint& there) {
  std::vector<std::string> differences;
  if (there.config_text() != plan.source.config_text)
    differences.push_back("config.json is another one");
  std::size_t planned = 0;
  for (const ShardPlan::File& file : source_shards(plan).files) {
    if (!std::filesystem::exists(there.directory() / file.file_name))
      differences.push_back(fmt::format("{} is missing", file.file_name));
    planned += file.tensors.size();
    for (const TensorSpec& spec : file.tensors) {
      const TensorInfo* info = there.find(spec.name);
      if (!info || info->dtype != spec.dtype || info->shape != spec.shape)
        differences.push_back(fmt::format("tensor '{}' is missing or has another form", spec.name));
    }
  }
  if (there.tensors().size() > planned)
    differences.push_back(
        fmt::format("there are {} tensors, expected {}", there.tensors().size(), planned));
  return differences;
}

std::vector<std::string> compare_restored_shard(const ConversionPlan& plan,
                                                const Checkpoint& converted,
                                                const Checkpoint& there, std::size_t shard,
                                                ThreadPool& pool, std::stop_token stop) {
  const ShardPlan shards = source_shards(plan);
  ThereSink sink(there, shards.files.at(shard).tensors);
  restore_tensors(plan, converted, shard, sink, pool, stop);
  return sink.differences();
}

}  // namespace moefy
