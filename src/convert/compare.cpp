#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>

#include "moefy/convert/convert.hpp"
#include "moefy/core/error.hpp"
#include "moefy/core/file.hpp"
#include "moefy/core/text.hpp"
#include "originals.hpp"
#include "plan.hpp"
#include "produce.hpp"

namespace moefy {

namespace {

/// Sorted keys: their order in a file means nothing.
using Json = nlohmann::json;

std::string shape_text(std::span<const std::int64_t> shape) {
  std::vector<std::string> extents;
  for (const std::int64_t extent : shape) extents.push_back(fmt::format("{}", extent));
  return fmt::format("[{}]", join_text(extents, ", "));
}

bool same_form(const TensorSpec& spec, const TensorInfo& info) {
  return info.dtype == spec.dtype && info.shape == spec.shape;
}

void compare_tensor_list(const ConversionPlan& plan, const Checkpoint& converted,
                         std::vector<std::string>& differences) {
  std::vector<std::string> planned;
  for (const OutputTensor& tensor : plan.tensors) {
    const TensorSpec& spec = tensor.spec;
    planned.push_back(spec.name);
    const TensorInfo* info = converted.find(spec.name);
    if (!info)
      differences.push_back(fmt::format("tensor '{}' is missing", spec.name));
    else if (!same_form(spec, *info))
      differences.push_back(fmt::format("tensor '{}' is {} {}, expected {} {}", spec.name,
                                        name_of(info->dtype), shape_text(info->shape),
                                        name_of(spec.dtype), shape_text(spec.shape)));
  }
  std::ranges::sort(planned);
  for (const TensorInfo& info : converted.tensors())
    if (!std::ranges::binary_search(planned, info.name))
      differences.push_back(
          fmt::format("tensor '{}' is extra: the dense model has nothing for it", info.name));
}

/// An edited top-k is right where the host allows it.
bool is_allowed_top_k(const ConversionPlan& plan, const std::string& key, const Json& value) {
  return plan.top_k_editable && key == plan.top_k_key && value.is_number_integer() && value >= 1 &&
         value <= plan.shape.num_experts;
}

void compare_config(const ConversionPlan& plan, const std::string& found_text,
                    std::vector<std::string>& differences) {
  const Json expected = Json::parse(plan.config_text);
  const Json found = Json::parse(found_text);
  for (const auto& [key, value] : expected.items()) {
    if (!found.contains(key))
      differences.push_back(
          fmt::format("config.json: '{}' is missing, expected {}", key, value.dump()));
    else if (found[key] != value && !is_allowed_top_k(plan, key, found[key]))
      differences.push_back(fmt::format("config.json: '{}' is {}, expected {}", key,
                                        found[key].dump(), value.dump()));
  }
  for (const auto& [key, value] : found.items())
    if (!expected.contains(key))
      differences.push_back(fmt::format("config.json: '{}' is extra ({})", key, value.dump()));
}

/// The bytes of a converted tensor in the place of those that pass; a buffer for each thread.
std::span<const std::byte> read_converted(const Checkpoint& converted, const TensorInfo& info,
                                          std::uint64_t offset, std::size_t size) {
  thread_local std::vector<std::byte> buffer;
  buffer.resize(size);
  converted.read(info, offset, buffer);
  return buffer;
}

/// Compares what the source says with what the converted files hold.
class CompareSink final : public ByteSink {
 public:
  CompareSink(const ConversionPlan& plan, const Checkpoint& converted)
      : plan_(plan), converted_(converted) {}

  void put(std::size_t tensor, std::uint64_t offset, std::span<const std::byte> bytes) override {
    const TensorSpec& spec = plan_.tensors[tensor].spec;
    const TensorInfo* info = converted_.find(spec.name);
    // Missing tensors and other forms are compare_structure's to tell.
    if (!info || !same_form(spec, *info)) return;
    const auto found = read_converted(converted_, *info, offset, bytes.size());
    if (std::memcmp(found.data(), bytes.data(), bytes.size()) == 0) return;
    const auto at =
        static_cast<std::size_t>(std::ranges::mismatch(found, bytes).in1 - found.begin());
    const std::uint64_t byte = offset + at;
    const std::string place = place_of(plan_, tensor, byte);
    const std::lock_guard lock(mutex_);
    difference_.try_emplace(tensor, fmt::format("{}tensor '{}' differs at element {}",
                                                place.empty() ? "" : place + ": ", spec.name,
                                                byte / size_of(spec.dtype)));
  }

  std::vector<std::string> differences() const {
    std::vector<std::string> texts;
    for (const auto& [tensor, text] : difference_) texts.push_back(text);
    return texts;
  }

 private:
  const ConversionPlan& plan_;
  const Checkpoint& converted_;
  std::mutex mutex_;
  std::map<std::size_t, std::string> difference_;  ///< the first of each tensor
};

/// Sums how far the converted values are from those that pass.
class DistanceSink final : public ByteSink {
 public:
  DistanceSink(const ConversionPlan& plan, const Checkpoint& converted)
      : plan_(plan), converted_(converted) {}

  void put(std::size_t tensor, std::uint64_t offset, std::span<const std::byte> bytes) override {
    const TensorSpec& spec = plan_.tensors[tensor].spec;
    const TensorInfo* info = converted_.find(spec.name);
    // Missing tensors and other forms are compare_structure's to tell.
    if (!info || !same_form(spec, *info)) return;
    std::vector<float> there(bytes.size() / size_of(spec.dtype));
    std::vector<float> dense(there.size());
    widen(spec.dtype, read_converted(converted_, *info, offset, bytes.size()), there);
    widen(spec.dtype, bytes, dense);
    RefitDistance part;
    for (std::size_t i = 0; i < dense.size(); ++i) {
      const double change = static_cast<double>(there[i]) - static_cast<double>(dense[i]);
      part.squared_change += change * change;
      part.squared_norm += static_cast<double>(dense[i]) * static_cast<double>(dense[i]);
    }
    // Scaled weights count as what they stand for.
    const auto* parts = std::get_if<std::vector<NeuronPart>>(&plan_.tensors[tensor].recipe);
    const double scale = std::pow(parts->front().scale(), -2);
    const std::lock_guard lock(mutex_);
    distance_[tensor].squared_change += scale * part.squared_change;
    distance_[tensor].squared_norm += scale * part.squared_norm;
  }

  /// Added in the order of the tensors, whichever thread had them.
  RefitDistance distance() const {
    RefitDistance sum;
    for (const auto& [tensor, part] : distance_) {
      sum.squared_change += part.squared_change;
      sum.squared_norm += part.squared_norm;
    }
    return sum;
  }

 private:
  const ConversionPlan& plan_;
  const Checkpoint& converted_;
  std::mutex mutex_;
  std::map<std::size_t, RefitDistance> distance_;  ///< by tensor
};

}  // namespace

std::vector<std::string> compare_structure(const ConversionPlan& plan, const Checkpoint& dense,
                                           const Checkpoint& converted) {
  std::vector<std::string> differences;
  compare_tensor_list(plan, converted, differences);
  try {
    compare_config(plan, converted.config_text(), differences);
  } catch (const nlohmann::json::exception& error) {
    throw InputError(fmt::format("config.json: {}", error.what()));
  }
  const std::filesystem::path kept = converted.directory() / "moefy" / "source_config.json";
  if (read_text_file(kept) != dense.config_text())
    differences.push_back("moefy/source_config.json is not the dense model's config.json");
  const std::filesystem::path& directory = converted.directory();
  for (const std::string& line :
       manifest_differences(read_text_file(manifest_of_output(directory)),
                            manifest_text(plan, map_of_output(directory))))
    differences.push_back("moefy/manifest.json: " + line);
  for (std::string& text : compare_originals(plan, dense, converted.directory()))
    differences.push_back(std::move(text));
  return differences;
}

std::vector<std::string> compare_shard(const ConversionPlan& plan, const Checkpoint& dense,
                                       const Checkpoint& converted, std::size_t shard,
                                       ThreadPool& pool, std::stop_token stop) {
  CompareSink sink(plan, converted);
  produce_shard(plan, dense, shard, Refitted::left_out, sink, pool, stop);
  return sink.differences();
}

RefitDistance refit_distance(const ConversionPlan& plan, const Checkpoint& dense,
                             const Checkpoint& converted, std::size_t shard, ThreadPool& pool,
                             std::stop_token stop) {
  if (!plan.config.use_refit) return {};
  DistanceSink sink(plan, converted);
  produce_shard(plan, dense, shard, Refitted::as_dense, sink, pool, stop);
  return sink.distance();
}

}  // namespace moefy
