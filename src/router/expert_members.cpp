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

ExpertScore expert_score_named(const std::string& name) {
  if (name == "l1") return ExpertScore::l1;
  if (name == "plain") return ExpertScore::plain;
  if (name == "positive") return ExpertScore::positive;
  require(name == "l2", "a score of experts");
  return ExpertScore::l2;
}

}  // namespace moefy
