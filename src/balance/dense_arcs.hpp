#pragma once

#include <cstdint>
#include <vector>

#include "site_arcs.hpp"
#include "site_loops.hpp"

namespace moefy {

/// All k x k arcs as tables: of every pair (u, v) the cheapest row of u, its *top*. A table row of
/// u lies like a row of costs, so that vector loops run over v.
///
/// Where the backend lists the smallest moves of all pairs at once, a pair starts with a short list
/// of kListLength. Elsewhere nothing is sorted ahead: it starts with its top alone. When its last
/// listed row leaves, the pair becomes *stale*: its key is then a lower bound, and only when that
/// bound would shorten a path, the members of u are scanned for a list of the next ones. `bound` of
/// a pair is such that every row of u with (key, row) below it is listed, so the first listed row
/// is the exact minimum.
template <class Cost>
class DenseArcs final : public SiteArcs<Cost> {
 public:
  static constexpr std::size_t kListLength = 16;

  /// Shorter lists change the work, never a result: for tests.
  explicit DenseArcs(std::size_t list_length = kListLength) : list_length_(list_length) {}

  void build(const SiteCosts<Cost>& costs, std::span<const std::int32_t> label);
  std::int64_t rescans() const { return rescans_; }

  bool is_empty(std::size_t u) const override { return members_.of(u).empty(); }
  void relax(std::size_t u, const FlowState<Cost>& state, PathTree<Cost>& tree) override;
  std::int32_t tight_row(std::size_t u, std::size_t v, const FlowState<Cost>& state) override;
  std::vector<std::int32_t> tight_rows(std::size_t u, std::size_t v, std::size_t limit,
                                       const FlowState<Cost>& state) override;
  void move(std::int32_t row, std::size_t v, FlowState<Cost>& state) override;

 private:
  struct ShortList {
    std::int32_t slot = -1;  // in pool_; -1: only the top is known
    std::uint8_t head = 0;
    std::uint8_t size = 0;
  };

  void begin_with_tops(std::span<const std::int32_t> label);
  bool begin_with_lists(std::span<const std::int32_t> label);
  /// What the first `size` entries of its list say of a pair.
  void take_list(std::size_t a, std::size_t size);
  std::size_t pair(std::size_t u, std::size_t v) const { return u * stride_ + v; }
  MoveEntry<Cost>* entries(const ShortList& list) {
    return pool_.data() + static_cast<std::size_t>(list.slot) * list_length_;
  }
  void rescan(std::size_t u, std::size_t v);
  void drop_top(std::size_t u, std::size_t v, std::span<const std::int32_t> label);
  void insert(std::size_t u, std::size_t v, Cost key, std::int32_t row);
  void insert_in_list(std::size_t a, Cost key, std::int32_t row);
  void set_top(std::size_t a, Cost key, std::int32_t row) {
    top_key_[a] = key;
    top_row_[a] = row;
  }
  void set_bound(std::size_t a, Cost key, std::int32_t row) {
    bound_key_[a] = key;
    bound_row_[a] = row;
  }

  std::size_t list_length_;
  const SiteCosts<Cost>* costs_ = nullptr;
  const SiteLoops<Cost>* loops_ = nullptr;
  const SiteLoops<Cost>* scan_loops_ = nullptr;
  std::size_t num_sites_ = 0;
  std::size_t stride_ = 0;
  SiteMembers members_;
  std::vector<Cost> own_;                    // cost of a row at its site
  AlignedBuffer<Cost> top_key_, bound_key_;  // [num_sites, stride]
  AlignedBuffer<std::int32_t> top_row_;      // -1: stale
  std::vector<std::int32_t> bound_row_;
  std::vector<ShortList> lists_;
  std::vector<MoveEntry<Cost>> pool_;
  std::vector<std::int32_t> found_;
  std::int64_t rescans_ = 0;
};

}  // namespace moefy
