#include <algorithm>
#include <numeric>

#include "importance_scores.hpp"
#include "moefy/core/error.hpp"
#include "moefy/core/random.hpp"

namespace moefy {

namespace {

/// One expert of the neurons that are kept (LLaMA-MoE's pruning): those with the largest sum of
/// importance over all text clusters, or a random subset drawn anew for every layer. The others
/// stand in no list.
class PruneSplitter : public Splitter {
 public:
  std::string name() const override { return "prune"; }
  RecordingNeed needs(const SplitConfig& config) const override {
    return config.criterion == "random" ? RecordingNeed::none : RecordingNeed::importance;
  }

  LayerResult split(const SplitTask& task, SplitWorkspace& workspace) const override {
    const auto neurons = static_cast<std::size_t>(task.layer.num_neurons);
    std::vector<std::int32_t> kept =
        task.config.criterion == "random" ? shuffled(task) : by_importance(task);
    kept.resize(kept_neurons(task.config, neurons));
    std::ranges::sort(kept);
    return result_of_lists(task, workspace, name(), NeuronLists::from_lists(neurons, {{kept}}));
  }

 private:
  static std::vector<std::int32_t> shuffled(const SplitTask& task) {
    std::vector<std::int32_t> ids(static_cast<std::size_t>(task.layer.num_neurons));
    std::iota(ids.begin(), ids.end(), 0);
    RandomStream stream(task.config.kmeans.seed, static_cast<std::uint64_t>(task.layer.index),
                        RandomPurpose::random_prune);
    shuffle(ids, stream);
    return ids;
  }

  static std::vector<std::int32_t> by_importance(const SplitTask& task) {
    require(task.importance != nullptr, "importance vectors are at hand");
    const std::vector<double> sum = summed_scores(importance_scores(task, task.importance->rows()));
    Matrix<double> row(1, sum.size());
    std::ranges::copy(sum, row.values().begin());
    return neurons_by_score(row).front();
  }
};

}  // namespace

std::unique_ptr<Splitter> make_prune_splitter() { return std::make_unique<PruneSplitter>(); }

}  // namespace moefy
