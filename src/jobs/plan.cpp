#include "moefy/jobs/plan.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>
#include <ostream>

#include "layer_feed.hpp"
#include "machine.hpp"
#include "moefy/backend/cublas.hpp"
#include "moefy/core/file.hpp"
#include "moefy/core/progress.hpp"
#include "moefy/jobs/model_source.hpp"
#include "moefy/schedule/layer_queue.hpp"
#include "recorded_inputs.hpp"
#include "shard_choice.hpp"

namespace moefy {

namespace {

using nlohmann::json;

/// Program, libraries and small buffers of one rank (VmHWM of a split less what is counted below).
constexpr std::uint64_t kBaseBytes = 20'000'000;
/// Balanced k-means on one thread: seconds per row, column and site of the distance products that a
/// whole run needs, and per row and column of its passes over the rows (bench/results).
constexpr double kSecondsPerProduct = 0.26e-9;
constexpr double kSecondsPerElement = 2.0e-9;
/// Share of a layer's work that more threads do not shorten.
constexpr double kSerialShare = 0.35;

struct LayerShape {
  std::uint64_t rows;
  std::uint64_t columns;
  std::uint64_t sites;
};

LayerShape shape_of(const SplitConfig& config, const LayerInfo& layer) {
  return {static_cast<std::uint64_t>(layer.num_neurons),
          static_cast<std::uint64_t>(clustered_columns(config, layer)),
          static_cast<std::uint64_t>(config.experts)};
}

double layer_seconds(const LayerShape& shape, std::size_t threads) {
  const double elements = static_cast<double>(shape.rows) * static_cast<double>(shape.columns);
  const double serial =
      elements * (kSecondsPerProduct * static_cast<double>(shape.sites) + kSecondsPerElement);
  return serial * (kSerialShare + (1 - kSerialShare) / static_cast<double>(threads));
}

/// What methods that look at recordings hold besides: the layer, a block of tokens, the hidden
/// activations that are kept, and matrices of pairs of neurons.
std::uint64_t recorded_memory(const SplitConfig& config, const LayerInfo& layer) {
  const auto neurons = static_cast<std::uint64_t>(layer.num_neurons);
  const auto width = static_cast<std::uint64_t>(layer.hidden_size);
  const std::uint64_t matrices = 4 * neurons * width * (layer.gated() ? 3 : 2);
  const std::uint64_t block = 4 * kTokenBlock * (4 * neurons + 2 * width);
  const std::uint64_t pairs = config.neuron_pairs ? 2 * 8 * neurons * neurons : 0;
  return matrices + block + kHiddenCacheBytes + pairs;
}

/// Rows of the one of `ranks` that has most of them.
std::uint64_t own_rows(const LayerShape& shape, std::int64_t ranks) {
  const std::uint64_t blocks = (shape.rows + kSumBlock - 1) / kSumBlock;
  const auto shards = static_cast<std::uint64_t>(ranks);
  return std::min((blocks + shards - 1) / shards * kSumBlock, shape.rows);
}

/// Of the rank that leads those that share the layer: it holds the rows of the start, and costs of
/// all rows, besides its own.
std::uint64_t layer_memory(const SplitConfig& config, const LayerInfo& layer, std::int64_t ranks) {
  const LayerShape shape = shape_of(config, layer);
  const std::uint64_t stride = (shape.sites + kSiteAlignment - 1) / kSiteAlignment * kSiteAlignment;
  const std::uint64_t rows = own_rows(shape, ranks);
  const std::uint64_t fp32_rows = 4 * rows * shape.columns;
  const std::uint64_t part = resolved_weights(config, layer) == "concat" ? fp32_rows / 3 : 0;
  // The quarter that FAISS averages, where the rows are not all here.
  const std::uint64_t start_rows = ranks > 1 ? shape.rows * shape.columns : 0;
  const std::uint64_t int8_rows = rows * shape.columns;
  const std::uint64_t costs = 2 * 4 * (rows + (ranks > 1 ? shape.rows : 0)) * stride;
  const std::uint64_t open_rows = (int8_rows + costs) / 3;  // at most, copied to settle alone
  const std::uint64_t centroids = (8 + 6 * 4) * shape.sites * shape.columns;
  const std::uint64_t arcs = (3 * 4 + 16 * 8) * shape.sites * stride;
  return fp32_rows + part + start_rows + int8_rows + costs + open_rows + centroids + arcs +
         (config.recorded ? recorded_memory(config, layer) : 0);
}

/// The same of a GPU: there sums of blocks of tokens are made of tiles of 1024 rows.
std::uint64_t recorded_device_memory(const SplitConfig& config, const LayerInfo& layer) {
  return recorded_memory(config, layer) + 4 * 1024 * static_cast<std::uint64_t>(layer.num_neurons) +
         cuda::kBlasWorkspace;
}

/// What a GPU holds of a layer: its rows, the bytes that they come from and those of the layer
/// after it, int8 rows, costs, vectors for each neuron and expert, what cuBLAS would take, and what
/// work on recordings does.
std::uint64_t own_device_memory(const SplitConfig& config, const LayerInfo& layer,
                                std::int64_t ranks) {
  const LayerShape shape = shape_of(config, layer);
  const std::uint64_t stride = (shape.sites + kSiteAlignment - 1) / kSiteAlignment * kSiteAlignment;
  const std::uint64_t rows = own_rows(shape, ranks);
  const std::uint64_t fp32_rows = 4 * rows * shape.columns;
  // Shared rows enter through the host.
  const bool through_host = config.recorded || ranks > 1;
  const std::uint64_t kept_rows = config.shared > 0 && ranks == 1 ? fp32_rows : 0;
  const std::uint64_t raw = through_host ? 0 : 2 * LayerPayload(config, layer, true).num_bytes();
  const std::uint64_t int8_rows = rows * shape.columns;
  const std::uint64_t costs = 2 * 4 * rows * stride;
  const std::uint64_t open_rows = (int8_rows + costs) / 3;
  const std::uint64_t figures = 64 * rows;
  // On their way to the host, a thousand at a time.
  const std::uint64_t read_rows = 4 * std::min<std::uint64_t>(rows, 1024) * shape.columns;
  // Columns of a call, int8 columns; centroids now and of earlier steps; sums.
  const std::uint64_t centroids = (2 * 4 + 2 + 5 * 4 + 2 * 8) * shape.sites * shape.columns;
  const std::uint64_t listed = 16 * shape.sites * shape.sites;
  const std::uint64_t arcs =
      8 * std::max(shape.sites * stride, listed <= kMostListedMoves ? listed : 0);
  return fp32_rows + kept_rows + raw + int8_rows + costs + open_rows + figures + read_rows +
         centroids + arcs + cuda::blas_memory(rows, shape.columns, shape.sites) +
         (config.recorded ? recorded_device_memory(config, layer) : 0);
}

/// What a start over FAISS' own index takes of a GPU besides.
std::uint64_t faiss_device_memory(const SplitConfig& config, const LayerInfo& layer) {
  if (config.kmeans.start != StartMethod::faiss_gpu) return 0;
  const LayerShape shape = shape_of(config, layer);
  return kFaissGpuBytes + 4 * shape.sites * shape.columns;
}

std::uint64_t layer_output(const SplitConfig& config, const LayerInfo& layer) {
  const LayerShape shape = shape_of(config, layer);
  const auto hidden = static_cast<std::uint64_t>(layer.hidden_size);
  constexpr std::uint64_t kGroupBytes = 16384;  // HDF5's own structures and statistics
  return 8 * shape.rows + 4 * shape.sites * (shape.columns + hidden) + 24 * shape.sites +
         kGroupBytes;
}

json to_json(const GpuLayout& layout, std::int64_t gpus) {
  return {{"gpus", gpus},
          {"gpu_of_rank", layout.gpu_of_rank},
          {"ranks_a_gpu", layout.most_ranks},
          {"memory_of_a_gpu", layout.memory}};
}

json to_json(const SplitPlan& plan, const PlanJobConfig& config) {
  json layers = json::array();
  for (const SplitPlan::Layer& layer : plan.layers)
    layers.push_back({{"layer", layer.index},
                      {"name", layer.name},
                      {"rank", layer.rank},
                      {"bytes_to_read", layer.bytes_to_read},
                      {"bytes_to_send", layer.bytes_to_send},
                      {"seconds", layer.seconds}});
  return {{"schema_version", 1},
          {"type", "plan"},
          {"ranks", config.ranks},
          {"ranks_a_layer", plan.ranks_a_layer},
          {"layers", layers},
          {"peak_memory", plan.peak_memory},
          {"peak_memory_if_sent", plan.peak_memory_if_sent},
          {"peak_device_memory", plan.peak_device_memory},
          {"bytes_to_read", plan.bytes_to_read},
          {"bytes_to_send", plan.bytes_to_send},
          {"output_bytes", plan.output_bytes},
          {"seconds_by_rank", plan.seconds_by_rank},
          {"seconds", plan.seconds}};
}

void print_text(std::ostream& out, const SplitPlan& plan, const std::string& sharing,
                bool recorded) {
  const auto bytes = [](std::uint64_t value) { return format_bytes(static_cast<double>(value)); };
  out << fmt::format("{:>6}  {:>4}  {:>10}  {:>10}  {:>9}  {}\n", "layer", "rank", "read", "send",
                     "time", "name");
  for (const SplitPlan::Layer& layer : plan.layers)
    out << fmt::format("{:>6}  {:>4}  {:>10}  {:>10}  {:>9}  {}\n", layer.index, layer.rank,
                       bytes(layer.bytes_to_read), bytes(layer.bytes_to_send),
                       format_seconds(layer.seconds), layer.name);
  if (plan.ranks_a_layer > 1)
    out << fmt::format("ranks a layer    {} ({})\n", plan.ranks_a_layer, sharing);
  out << fmt::format(
      "memory per rank  {} at the most, {} if rank 0 has to send the layers\n"
      "memory of a GPU  {} at the most, with --backend cuda\n"
      "to read          {}\n"
      "to send          {} (only if a rank cannot read the model)\n"
      "map and journal  {}\n"
      "time             about {}{}\n",
      bytes(plan.peak_memory), bytes(plan.peak_memory_if_sent), bytes(plan.peak_device_memory),
      bytes(plan.bytes_to_read), bytes(plan.bytes_to_send), bytes(plan.output_bytes),
      format_seconds(plan.seconds), recorded ? ", and the passes over the recordings" : "");
}

void print_gpus(std::ostream& out, const GpuLayout& layout, std::int64_t gpus) {
  const auto ranks = static_cast<std::int64_t>(layout.gpu_of_rank.size());
  std::string how = "one rank each; layers go over NCCL if rank 0 has to send them";
  if (gpus > ranks) how += fmt::format("; {} without a rank", gpus - ranks);
  if (layout.most_ranks > 1) {
    how = fmt::format("shared by up to {} ranks: start as many ranks as GPUs", layout.most_ranks);
  }
  out << fmt::format("GPUs             {}, {}\nmemory of each   {} at the most\n", gpus, how,
                     format_bytes(static_cast<double>(layout.memory)));
}

/// Largest first, always to those that are free first: what the queue does when times are as
/// predicted.
void hand_out(SplitPlan& plan, std::int64_t ranks) {
  const std::int64_t groups = (ranks + plan.ranks_a_layer - 1) / plan.ranks_a_layer;
  std::vector<double> seconds_by_group(static_cast<std::size_t>(groups), 0.0);
  std::vector<std::size_t> order(plan.layers.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return plan.layers[a].seconds > plan.layers[b].seconds;
  });
  for (const std::size_t i : order) {
    const auto free_first = std::ranges::min_element(seconds_by_group);
    plan.layers[i].rank = (free_first - seconds_by_group.begin()) * plan.ranks_a_layer;
    *free_first += plan.layers[i].seconds;
  }
  for (std::int64_t rank = 0; rank < ranks; ++rank)
    plan.seconds_by_rank.push_back(
        seconds_by_group[static_cast<std::size_t>(rank / plan.ranks_a_layer)]);
}

/// Ranks beyond this have no rows of any layer.
std::int64_t most_blocks(std::span<const LayerInfo> layers) {
  std::int64_t most = 1;
  for (const LayerInfo& layer : layers)
    most = std::max(most, (layer.num_neurons + static_cast<std::int64_t>(kSumBlock) - 1) /
                              static_cast<std::int64_t>(kSumBlock));
  return most;
}

/// What a split with these ranks would do about sharing; memory is this machine's.
ShardChoice planned_sharing(std::span<const LayerInfo> layers, const PlanJobConfig& config) {
  const std::int64_t wanted = config.split.shard_rows;
  if (wanted > 0) return {std::min(wanted, config.ranks), "--shard-rows"};
  if (!sharding_obstacle(config.split).empty()) return {};
  const std::uint64_t total = read_memory_info().total;
  return choose_shards_of(layers, config.split.split, config.ranks, [&](const SplitPlan& plan) {
    return (total == 0 || plan.peak_memory <= total) &&
           device_problem(plan, config.split.device_memory).empty();
  });
}

void require_fit(const SplitPlan& plan, const PlanJobConfig& config) {
  std::vector<std::string> problems;
  const MemoryInfo memory = read_memory_info();
  const std::uint64_t needed =
      config.split.feed == "coordinator" ? plan.peak_memory_if_sent : plan.peak_memory;
  if (memory.total > 0 && needed > memory.total) {
    problems.push_back(fmt::format("a rank needs {} of memory, this machine has {}",
                                   format_bytes(static_cast<double>(needed)),
                                   format_bytes(static_cast<double>(memory.total))));
  }
  if (const std::string problem = device_problem(plan, config.split.device_memory);
      !problem.empty())
    problems.push_back(problem);
  if (!config.split.output.empty()) {
    try {
      require_free_space(config.split.output, plan.output_bytes);
    } catch (const IoError& error) {
      problems.push_back(error.what());
    }
  }
  if (!problems.empty()) throw UsageError(problems);
}

}  // namespace

SplitPlan make_split_plan(std::span<const LayerInfo> layers, const SplitConfig& config,
                          std::int64_t ranks, std::size_t threads, std::int64_t ranks_a_layer) {
  require(ranks >= 1 && threads >= 1 && ranks_a_layer >= 1, "a plan needs a rank and a thread");
  SplitPlan plan;
  plan.ranks_a_layer = ranks_a_layer;
  const std::size_t threads_a_layer = threads * static_cast<std::size_t>(ranks_a_layer);
  std::uint64_t largest_payload = 0;
  std::uint64_t largest_matrix = 0;
  for (const LayerInfo& layer : layers) {
    SplitPlan::Layer planned;
    planned.index = layer.index;
    planned.name = layer.name;
    planned.bytes_to_read = layer.file_bytes();
    for (const FfnRole role : roles_read(config, layer)) {
      planned.bytes_to_send += role_bytes(layer, role);
      largest_matrix = std::max(largest_matrix, role_bytes(layer, role));
    }
    planned.seconds = layer_seconds(shape_of(config, layer), threads_a_layer);
    plan.peak_memory =
        std::max(plan.peak_memory, kBaseBytes + layer_memory(config, layer, ranks_a_layer));
    const std::uint64_t on_device = own_device_memory(config, layer, ranks_a_layer);
    plan.own_device_memory = std::max(plan.own_device_memory, on_device);
    plan.peak_device_memory =
        std::max(plan.peak_device_memory, on_device + faiss_device_memory(config, layer));
    largest_payload = std::max(largest_payload, planned.bytes_to_send);
    const std::uint64_t record = layer_output(config, layer);
    plan.output_bytes += 2 * record;
    plan.bytes_to_read += planned.bytes_to_read;
    plan.bytes_to_send += planned.bytes_to_send;
    plan.layers.push_back(std::move(planned));
  }
  plan.peak_memory_if_sent =
      plan.peak_memory + 2 * std::min<std::uint64_t>(largest_payload, kPieceBytes);
  if (ranks_a_layer > 1) plan.peak_memory_if_sent += largest_matrix;  // dealt out by the leader
  hand_out(plan, ranks);
  plan.seconds = *std::ranges::max_element(plan.seconds_by_rank);
  return plan;
}

GpuLayout make_gpu_layout(std::int64_t ranks, std::int64_t gpus, std::uint64_t memory_of_a_rank) {
  require(ranks >= 1 && gpus >= 1, "a layout needs a rank and a GPU");
  GpuLayout layout;
  for (std::int64_t rank = 0; rank < ranks; ++rank) layout.gpu_of_rank.push_back(rank % gpus);
  layout.most_ranks = (ranks + gpus - 1) / gpus;
  layout.memory = static_cast<std::uint64_t>(layout.most_ranks) * memory_of_a_rank;
  return layout;
}

ShardChoice choose_shards_of(std::span<const LayerInfo> layers, const SplitConfig& config,
                             std::int64_t ranks,
                             const std::function<bool(const SplitPlan& plan)>& fits) {
  ShardChoice choice;
  const auto num_layers = static_cast<std::int64_t>(layers.size());
  if (num_layers == 0) return choice;
  if (ranks > num_layers) {
    choice.ranks_a_layer = std::min((ranks + num_layers - 1) / num_layers, most_blocks(layers));
    if (choice.ranks_a_layer > 1) choice.reason = "more ranks than layers";
  }
  const auto plan_of = [&](std::int64_t ranks_a_layer) {
    return make_split_plan(layers, config, ranks, 1, ranks_a_layer);
  };
  std::int64_t ranks_a_layer = choice.ranks_a_layer;
  while (ranks_a_layer < ranks && !fits(plan_of(ranks_a_layer))) ++ranks_a_layer;
  // Where nothing fits, sharing is no help.
  if (ranks_a_layer > choice.ranks_a_layer && fits(plan_of(ranks_a_layer))) {
    const SplitPlan alone = plan_of(choice.ranks_a_layer);
    choice.reason = fmt::format("else a rank needs {} of memory, a GPU {}",
                                format_bytes(static_cast<double>(alone.peak_memory)),
                                format_bytes(static_cast<double>(alone.peak_device_memory)));
    choice.ranks_a_layer = ranks_a_layer;
  }
  return choice;
}

std::string device_problem(const SplitPlan& plan, std::uint64_t device_memory) {
  if (device_memory == 0 || plan.peak_device_memory <= device_memory) return {};
  return fmt::format(
      "a layer needs {} of a GPU, --device-memory allows {}; allow more, or, without --recordings, "
      "let ranks share it (--shard-rows)",
      format_bytes(static_cast<double>(plan.peak_device_memory)),
      format_bytes(static_cast<double>(device_memory)));
}

PlanJobConfig plan_config_of(const SplitJobConfig& split, const JobContext& context) {
  return {split, context.comm.size()};
}

ExitCode run_plan(const PlanJobConfig& config, JobContext& context) {
  together(context.comm, [&] {
    if (!context.is_root()) return;
    const ModelSource source = open_model(config.split.model, context.architecture_file);
    std::vector<LayerInfo> layers;
    std::vector<std::string> problems;
    for (const std::int64_t index : select_layers(config.split.layers, source.layers)) {
      layers.push_back(source.layers[static_cast<std::size_t>(index)]);
      for (std::string& problem : split_problems(config.split.split, layers.back()))
        problems.push_back(std::move(problem));
    }
    if (!problems.empty()) throw UsageError(problems);
    const ShardChoice sharing = planned_sharing(layers, config);
    const SplitPlan plan = make_split_plan(layers, config.split.split, config.ranks,
                                           context.threads, sharing.ranks_a_layer);
    std::optional<GpuLayout> layout;
    if (config.gpus > 0)
      layout = make_gpu_layout(config.ranks, config.gpus, plan.peak_device_memory);
    if (context.json) {
      json line = to_json(plan, config);
      if (layout) line["gpu_layout"] = to_json(*layout, config.gpus);
      context.out << line.dump() << '\n';
    } else {
      print_text(context.out, plan, sharing.reason, config.split.split.recorded);
      if (layout) print_gpus(context.out, *layout, config.gpus);
    }
    require_fit(plan, config);
  });
  return ExitCode::done;
}

}  // namespace moefy
