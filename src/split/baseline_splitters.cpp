#include <numeric>

#include "clustered_rows.hpp"
#include "moefy/core/error.hpp"
#include "moefy/core/random.hpp"

namespace moefy {

namespace {

/// Sizes of the routed experts that --sizes asks for: the first ones are larger where a choice is
/// left (bounds are filled up from the first expert on).
std::vector<std::size_t> chosen_sizes(const SplitTask& task, std::size_t num_rows) {
  const Capacities capacities =
      routed_capacities(task.config, static_cast<std::size_t>(task.layer.num_neurons));
  const std::span<const SizeBounds> bounds = capacities.bounds();
  std::vector<std::size_t> sizes;
  std::size_t left = num_rows;
  for (const SizeBounds& bound : bounds) {
    sizes.push_back(bound.lower);
    left -= bound.lower;
  }
  // One neuron a round, so that free sizes end as equal as the bounds allow.
  while (left > 0) {
    const std::size_t before = left;
    for (std::size_t e = 0; e < sizes.size() && left > 0; ++e) {
      if (sizes[e] == bounds[e].upper) continue;
      ++sizes[e];
      --left;
    }
    require(left < before, "--sizes leave neurons over");
  }
  return sizes;
}

/// A split whose labels do not come from the weights: what clustering is compared with.
class BaselineSplitter : public Splitter {
 public:
  LayerResult split(const SplitTask& task, SplitWorkspace& workspace) const override {
    const ClusteredRows clustered = prepare_rows(task, workspace);
    const std::vector<std::int32_t> label = labels(task, clustered.rows.rows);
    LayerResult result = begin_result(task, clustered, label);
    result.method = name();
    describe_labels(result, task, workspace, clustered, label);
    attach_router(result, task, workspace, label);
    return result;
  }

 protected:
  virtual std::vector<std::int32_t> labels(const SplitTask& task, std::size_t num_rows) const = 0;
};

/// Expert 0's rows, then expert 1's, ….
std::vector<std::int32_t> filled_in_order(const SplitTask& task, std::size_t num_rows) {
  std::vector<std::int32_t> label;
  label.reserve(num_rows);
  const std::vector<std::size_t> sizes = chosen_sizes(task, num_rows);
  for (std::size_t e = 0; e < sizes.size(); ++e)
    label.insert(label.end(), sizes[e], static_cast<std::int32_t>(e));
  return label;
}

/// Expert i mod E of row i.
std::vector<std::int32_t> dealt_in_turn(const SplitTask& task, std::size_t num_rows) {
  const auto experts = static_cast<std::size_t>(task.config.experts);
  std::vector<std::int32_t> label(num_rows);
  for (std::size_t i = 0; i < num_rows; ++i) label[i] = static_cast<std::int32_t>(i % experts);
  return label;
}

class RandomSplitter : public BaselineSplitter {
 public:
  std::string name() const override { return "random"; }

 protected:
  std::vector<std::int32_t> labels(const SplitTask& task, std::size_t num_rows) const override {
    std::vector<std::int32_t> label = task.config.sizes == "equal"
                                          ? dealt_in_turn(task, num_rows)
                                          : filled_in_order(task, num_rows);
    RandomStream stream(task.config.kmeans.seed, static_cast<std::uint64_t>(task.layer.index),
                        RandomPurpose::random_split);
    shuffle(label, stream);
    return label;
  }
};

class ContiguousSplitter : public BaselineSplitter {
 public:
  std::string name() const override { return "contiguous"; }

 protected:
  std::vector<std::int32_t> labels(const SplitTask& task, std::size_t num_rows) const override {
    return filled_in_order(task, num_rows);
  }
};

}  // namespace

std::unique_ptr<Splitter> make_random_splitter() { return std::make_unique<RandomSplitter>(); }
std::unique_ptr<Splitter> make_contiguous_splitter() {
  return std::make_unique<ContiguousSplitter>();
}

}  // namespace moefy
