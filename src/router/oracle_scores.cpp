#include <algorithm>
#include <cmath>

#include "moefy/core/error.hpp"
#include "moefy/router/router_fitter.hpp"

namespace moefy {

ExpertMembers members_of(const NeuronLists& lists) {
  ExpertMembers members;
  for (std::size_t e = 0; e < lists.num_experts(); ++e) {
    const auto list = lists.expert_members(e);
    members.emplace_back(list.begin(), list.end());
  }
  return members;
}

void oracle_scores(MatrixView<const float> hidden, const ExpertMembers& members,
                   MatrixView<float> scores, ThreadPool& threads) {
  constexpr std::size_t kRows = 256;
  require(scores.cols == members.size() && scores.rows == hidden.rows, "a score for every expert");
  threads.for_each((hidden.rows + kRows - 1) / kRows, [&](std::size_t tile) {
    for (std::size_t t = tile * kRows; t < std::min(hidden.rows, (tile + 1) * kRows); ++t) {
      const std::span<const float> row = hidden.row(t);
      for (std::size_t e = 0; e < members.size(); ++e) {
        double sum = 0;
        for (const std::int32_t neuron : members[e])
          sum += std::abs(row[static_cast<std::size_t>(neuron)]);
        scores.row(t)[e] = static_cast<float>(sum);
      }
    }
  });
}

}  // namespace moefy
