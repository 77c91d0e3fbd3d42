#include "sharded/site_moves.hpp"

#include <numeric>

namespace moefy::sharded {
namespace {

/// move(row, before, after) for every row whose label changes; before < 0: it had none.
template <class Move>
void for_each_move(std::span<const std::int32_t> old_label, std::span<const std::int32_t> new_label,
                   const Move& move) {
  for (std::size_t a = 0; a < new_label.size(); ++a) {
    const std::int32_t before = old_label.empty() ? -1 : old_label[a];
    if (before != new_label[a]) move(a, before, new_label[a]);
  }
}

}  // namespace

std::vector<std::int32_t> changed_sites(std::span<const std::int32_t> old_label,
                                        std::span<const std::int32_t> new_label,
                                        std::size_t num_sites) {
  std::vector<char> changes(num_sites, 0);
  for_each_move(old_label, new_label, [&](std::size_t, std::int32_t before, std::int32_t after) {
    if (before >= 0) changes[static_cast<std::size_t>(before)] = 1;
    changes[static_cast<std::size_t>(after)] = 1;
  });
  std::vector<std::int32_t> sites;
  for (std::size_t j = 0; j < num_sites; ++j) {
    if (changes[j] != 0) sites.push_back(static_cast<std::int32_t>(j));
  }
  return sites;
}

std::vector<std::int32_t> all_sites(std::size_t num_sites) {
  std::vector<std::int32_t> sites(num_sites);
  std::iota(sites.begin(), sites.end(), 0);
  return sites;
}

SiteMoves::SiteMoves(std::span<const std::int32_t> old_label,
                     std::span<const std::int32_t> new_label, std::span<std::int64_t> count)
    : sites_(changed_sites(old_label, new_label, count.size())),
      old_label_(old_label.size(), 0),
      new_label_(new_label.size(), 0) {
  std::vector<std::int32_t> position(count.size(), -1);
  for (std::size_t p = 0; p < sites_.size(); ++p)
    position[static_cast<std::size_t>(sites_[p])] = static_cast<std::int32_t>(p);
  for_each_move(old_label, new_label, [&](std::size_t a, std::int32_t before, std::int32_t after) {
    if (before >= 0) --count[static_cast<std::size_t>(before)];
    ++count[static_cast<std::size_t>(after)];
    if (!old_label.empty())
      old_label_[a] = before < 0 ? before : position[static_cast<std::size_t>(before)];
    new_label_[a] = position[static_cast<std::size_t>(after)];
  });
}

}  // namespace moefy::sharded
