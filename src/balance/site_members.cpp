#include "site_arcs.hpp"

namespace moefy {

void SiteMembers::assign(std::span<const std::int32_t> label, std::size_t num_sites) {
  members_.resize(num_sites);
  for (auto& list : members_) list.clear();
  position_.resize(label.size());
  for (std::size_t i = 0; i < label.size(); ++i) {
    auto& list = members_[static_cast<std::size_t>(label[i])];
    position_[i] = static_cast<std::int32_t>(list.size());
    list.push_back(static_cast<std::int32_t>(i));
  }
}

void SiteMembers::move(std::int32_t row, std::size_t u, std::size_t v) {
  const auto i = static_cast<std::size_t>(row);
  auto& from = members_[u];
  const std::int32_t last = from.back();
  from[static_cast<std::size_t>(position_[i])] = last;
  position_[static_cast<std::size_t>(last)] = position_[i];
  from.pop_back();
  position_[i] = static_cast<std::int32_t>(members_[v].size());
  members_[v].push_back(row);
}

}  // namespace moefy
