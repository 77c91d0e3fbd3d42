#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace moefy::sharded {

/// Sites that a row leaves or joins, ascending. Labels as in Backend::update_sums.
std::vector<std::int32_t> changed_sites(std::span<const std::int32_t> old_label,
                                        std::span<const std::int32_t> new_label,
                                        std::size_t num_sites);
/// 0, 1, …
std::vector<std::int32_t> all_sites(std::size_t num_sites);

/// A change of labels that names only the sites that it changes: members then clear, add up and
/// send sums of those alone.
class SiteMoves {
 public:
  /// Labels as in Backend::update_sums, of all rows; `count` [sites] becomes what they make of it.
  SiteMoves(std::span<const std::int32_t> old_label, std::span<const std::int32_t> new_label,
            std::span<std::int64_t> count);

  /// changed_sites()
  std::span<const std::int32_t> sites() const { return sites_; }
  /// The labels as positions in sites(); rows that stay have twice the same.
  std::span<const std::int32_t> old_label() const { return old_label_; }
  std::span<const std::int32_t> new_label() const { return new_label_; }

 private:
  std::vector<std::int32_t> sites_;
  std::vector<std::int32_t> old_label_;
  std::vector<std::int32_t> new_label_;
};

}  // namespace moefy::sharded
