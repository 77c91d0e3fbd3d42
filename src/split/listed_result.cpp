#include <algorithm>
#include <memory>

#include "clustered_rows.hpp"
#include "moefy/router/centroid_router.hpp"

namespace moefy {

double inertia_of_lists(Backend& backend, const RowsView& rows, const NeuronLists& lists,
                        Matrix<float>* centroids) {
  if (centroids) centroids->resize(lists.num_experts(), rows.cols);
  const std::unique_ptr<Points> points = backend.make_points();
  backend.load(*points, rows, false);
  double inertia = 0;
  Matrix<float> own;
  for (std::size_t e = 0; e < lists.num_experts(); ++e) {
    const std::span<const std::int32_t> members = lists.expert_members(e);
    own.resize(members.size(), rows.cols);
    backend.read_rows(*points, members, own.view());
    const std::vector<std::int32_t> label(members.size(), 0);
    const LabelFigures figures = figures_of_labels(backend, own.view(), label, 1);
    inertia += figures.inertia;
    if (centroids) std::ranges::copy(figures.centroids.row(0), centroids->row(e).begin());
  }
  return inertia;
}

LayerResult result_of_lists(const SplitTask& task, SplitWorkspace& workspace,
                            const std::string& method, NeuronLists lists) {
  const ClusteredRows all = prepare_rows_besides(task, {}, workspace);
  LayerResult result = identify_result(task);
  result.method = method;
  result.stop_reason = StopReason::not_clustered;
  result.sharing = std::move(lists);
  result.inertia =
      inertia_of_lists(workspace.backend, all.rows, *result.sharing, &result.centroids);
  result.inertia_initial = result.inertia;
  result.zero_rows = std::ranges::count(workspace.rows->squared_norms(), 0.0);
  if (!are_router_rows(task)) load_router_rows(task, workspace);
  result.router = fit_centroid_router(*workspace.rows, *result.sharing);
  return result;
}

}  // namespace moefy
