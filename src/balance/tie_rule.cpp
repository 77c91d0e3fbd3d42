#include "tie_rule.hpp"

#include <optional>

#include "tie_graph.hpp"

namespace moefy {
namespace {

struct TiedRow {
  std::int32_t row;
  std::int32_t tie_class;
};

template <class Cost>
class TieRule {
 public:
  TieRule(const SiteCosts<Cost>& costs, FlowState<Cost>& state) : costs_(costs), state_(state) {}

  void apply() {
    find_ties();
    if (tied_.empty()) return;
    if (state_.has_slack) open_slack_arcs();
    for (const TiedRow& tied : tied_) {
      graph_->add(tied.row, tied.tie_class, site_of(tied.row));
    }
    for (const TiedRow& tied : tied_) settle(tied);
  }

 private:
  std::size_t site_of(std::int32_t row) const {
    return static_cast<std::size_t>(state_.label[static_cast<std::size_t>(row)]);
  }

  void find_ties() {
    const Cost* const price = state_.price.data();
    for (const std::int32_t i : costs_.tied_rows(state_.label, state_.site_prices())) {
      const Cost* const costs = costs_.row(static_cast<std::size_t>(i));
      const Cost own = costs[site_of(i)] + price[site_of(i)];
      if (!graph_) graph_.emplace(state_.num_sites);
      BitSet sites(state_.num_sites + 1);
      for (std::size_t j = 0; j < state_.num_sites; ++j) {
        if (costs[j] + price[j] == own) sites.insert(j);
      }
      tied_.push_back({i, graph_->class_of(sites)});
    }
  }

  void open_slack_arcs() {
    size_.assign(state_.num_sites, 0);
    for (const std::int32_t label : state_.label) ++size_[static_cast<std::size_t>(label)];
    for (std::size_t j = 0; j < state_.num_sites; ++j) update_slack_arcs(j);
  }

  void update_slack_arcs(std::size_t j) {
    const std::size_t slack = state_.num_sites;
    const bool is_free = state_.price[j] == 0;
    graph_->set_slack_arc(j, slack, is_free && size_[j] < state_.upper[j]);
    graph_->set_slack_arc(slack, j, is_free && size_[j] > state_.lower[j]);
  }

  // Gives the row its final label: the smallest that the rows not yet settled can make room for.
  void settle(const TiedRow& tied) {
    const std::size_t site = site_of(tied.row);
    graph_->remove(tied.row, tied.tie_class, site);
    const auto path = graph_->path_from_smallest(graph_->sites_of(tied.tie_class), site);
    if (path.empty()) return;
    for (std::size_t step = 0; step + 1 < path.size(); ++step) pass_on(path[step], path[step + 1]);
    state_.label[static_cast<std::size_t>(tied.row)] = static_cast<std::int32_t>(path.front());
  }

  void pass_on(std::size_t u, std::size_t v) {
    const std::size_t slack = state_.num_sites;
    if (u == slack || v == slack) {
      const std::size_t site = u == slack ? v : u;
      size_[site] += u == slack ? -1 : 1;
      update_slack_arcs(site);
      return;
    }
    const auto [row, tie_class] = graph_->some_row(u, v);
    graph_->remove(row, tie_class, u);
    graph_->add(row, tie_class, v);
    state_.label[static_cast<std::size_t>(row)] = static_cast<std::int32_t>(v);
  }

  const SiteCosts<Cost>& costs_;
  FlowState<Cost>& state_;
  std::optional<TieGraph> graph_;
  std::vector<TiedRow> tied_;
  std::vector<std::int64_t> size_;
};

}  // namespace

template <class Cost>
void make_canonical(const SiteCosts<Cost>& costs, FlowState<Cost>& state) {
  TieRule<Cost>(costs, state).apply();
}

template void make_canonical(const SiteCosts<std::int32_t>&, FlowState<std::int32_t>&);
template void make_canonical(const SiteCosts<std::int64_t>&, FlowState<std::int64_t>&);

}  // namespace moefy
