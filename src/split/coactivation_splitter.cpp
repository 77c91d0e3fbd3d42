#include "coactivation.hpp"
#include "moefy/core/error.hpp"
#include "neuron_graph.hpp"
#include "recorded_splitter.hpp"

namespace moefy {

namespace {

/// Parts of the graph of neurons that are active together (MoEfication, ACL Findings 2022, section
/// 3.1, "co-activation graph split"), of exact sizes: METIS, one exact assignment, improving swaps.
class CoactivationSplitter : public RecordedSplitter {
 public:
  std::string name() const override { return "coactivation"; }

 protected:
  std::vector<std::int32_t> labels(const SplitTask& task, SplitWorkspace& workspace,
                                   Metrics& metrics) const override {
    const auto neurons = static_cast<std::size_t>(task.layer.num_neurons);
    const auto experts = static_cast<std::size_t>(task.config.experts);
    const std::vector<std::int32_t> routed = neurons_besides(pick_shared(task, workspace), neurons);
    const NeuronGraph graph =
        coactivation_graph(count_coactivation(*task.tokens, task.config, routed));
    const std::vector<std::int32_t> parts =
        partition_graph(graph, experts, task.config.kmeans.seed);
    if (task.stop.stop_requested()) throw Interrupted("stopped by request");
    std::vector<std::int32_t> label =
        rebalance_parts(graph, parts, routed_capacities(task.config, neurons));
    metrics.emplace_back("edge_cut_metis", edge_cut(graph, parts));
    metrics.emplace_back("edge_cut_balanced", edge_cut(graph, label));
    swap_improving(graph, experts, label);
    metrics.emplace_back("edge_cut", edge_cut(graph, label));
    metrics.emplace_back("edge_density", graph.density());
    return labels_of_all(routed, label, neurons);
  }
};

}  // namespace

std::unique_ptr<Splitter> make_coactivation_splitter() {
  require_metis();  // before anything is read
  return std::make_unique<CoactivationSplitter>();
}

}  // namespace moefy
