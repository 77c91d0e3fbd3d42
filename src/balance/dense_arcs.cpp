#include "dense_arcs.hpp"

#include <algorithm>
#include <cstring>
#include <limits>

namespace moefy {
namespace {

template <class Cost>
bool is_below(Cost key, std::int32_t row, Cost other_key, std::int32_t other_row) {
  return key < other_key || (key == other_key && row < other_row);
}

}  // namespace

template <class Cost>
void DenseArcs<Cost>::build(const SiteCosts<Cost>& costs, std::span<const std::int32_t> label) {
  costs_ = &costs;
  num_sites_ = costs.num_sites();
  stride_ = costs.stride();
  loops_ = &site_loops<Cost>(costs.instruction_set());
  // Gathers count in 32 bits.
  const bool far = costs.num_rows() * stride_ > std::numeric_limits<std::int32_t>::max();
  scan_loops_ = far ? &site_loops<Cost>(InstructionSet::portable) : loops_;
  rescans_ = 0;

  members_.assign(label, num_sites_);
  own_.resize(costs.num_rows());
  for (std::size_t i = 0; i < own_.size(); ++i) {
    own_[i] = costs.row(i)[static_cast<std::size_t>(label[i])];
  }
  const std::size_t num_pairs = num_sites_ * stride_;
  top_key_.resize(num_pairs);
  top_row_.resize(num_pairs);
  bound_key_.resize(num_pairs);
  bound_row_.resize(num_pairs);
  lists_.assign(num_pairs, {});
  pool_.clear();
  if (!begin_with_lists(label)) begin_with_tops(label);
  for (std::size_t u = 0; u < num_sites_ && num_sites_ < stride_; ++u) {
    for (std::size_t v = num_sites_; v < stride_; ++v) {
      set_top(pair(u, v), 0, -1);
      bound_key_[pair(u, v)] = std::numeric_limits<Cost>::min();
    }
  }
  found_.resize(stride_ + 1);
}

template <class Cost>
void DenseArcs<Cost>::begin_with_tops(std::span<const std::int32_t> label) {
  costs_->smallest_moves(label, top_key_.span(), top_row_.span());
  std::memcpy(bound_key_.data(), top_key_.data(), top_key_.size() * sizeof(Cost));
  bound_row_.assign(top_row_.data(), top_row_.data() + top_row_.size());
}

template <class Cost>
bool DenseArcs<Cost>::begin_with_lists(std::span<const std::int32_t> label) {
  const std::size_t num_moves = num_sites_ * num_sites_ * list_length_;
  if (num_moves > kMostListedMoves || !costs_->list_moves(label, list_length_, pool_)) return false;
  std::int32_t slot = 0;
  for (std::size_t u = 0; u < num_sites_; ++u) {
    for (std::size_t v = 0; v < num_sites_; ++v, ++slot) {
      const std::size_t a = pair(u, v);
      lists_[a].slot = slot;
      take_list(a, std::min(list_length_, members_.of(u).size()));
    }
  }
  return true;
}

template <class Cost>
void DenseArcs<Cost>::relax(std::size_t u, const FlowState<Cost>& state, PathTree<Cost>& tree) {
  const Cost base = tree.distance[u] - state.price[u];
  const auto site = static_cast<std::int32_t>(u);
  const std::size_t num_stale = loops_->relax(
      base, state.price.data(), top_key_.data() + pair(u, 0), top_row_.data() + pair(u, 0), site,
      num_sites_, tree.distance.data(), tree.parent.data(), found_.data());
  for (std::size_t s = 0; s < num_stale; ++s) {
    const auto v = static_cast<std::size_t>(found_[s]);
    rescan(u, v);
    const Cost candidate = base + state.price[v] + top_key_[pair(u, v)];
    if (candidate < tree.distance[v]) {
      tree.distance[v] = candidate;
      tree.parent[v] = site;
    }
  }
}

template <class Cost>
std::int32_t DenseArcs<Cost>::tight_row(std::size_t u, std::size_t v,
                                        const FlowState<Cost>& state) {
  if (is_empty(u)) return -1;
  const std::size_t a = pair(u, v);
  const Cost tight = state.price[u] - state.price[v];
  if (top_key_[a] > tight) return -1;
  if (top_row_[a] < 0) {
    rescan(u, v);
    if (top_key_[a] > tight) return -1;
  }
  return top_row_[a];
}

template <class Cost>
std::vector<std::int32_t> DenseArcs<Cost>::tight_rows(std::size_t u, std::size_t v,
                                                      std::size_t limit,
                                                      const FlowState<Cost>& state) {
  const Cost tight = state.price[u] - state.price[v];
  std::vector<std::int32_t> rows;
  for (const std::int32_t row : members_.of(u)) {
    const auto i = static_cast<std::size_t>(row);
    if (costs_->row(i)[v] - own_[i] == tight) rows.push_back(row);
  }
  if (rows.size() > limit) {
    std::nth_element(rows.begin(), rows.begin() + static_cast<std::ptrdiff_t>(limit), rows.end());
    rows.resize(limit);
  }
  std::sort(rows.begin(), rows.end());
  return rows;
}

template <class Cost>
void DenseArcs<Cost>::move(std::int32_t row, std::size_t v, FlowState<Cost>& state) {
  const auto i = static_cast<std::size_t>(row);
  const auto u = static_cast<std::size_t>(state.label[i]);
  const Cost* const costs = costs_->row(i);
  members_.move(row, u, v);
  state.label[i] = static_cast<std::int32_t>(v);
  own_[i] = costs[v];

  std::size_t count =
      loops_->find_row(top_row_.data() + pair(u, 0), row, num_sites_, found_.data());
  for (std::size_t f = 0; f < count; ++f) {
    drop_top(u, static_cast<std::size_t>(found_[f]), state.label);
  }
  count = loops_->keys_within(costs, costs[v], bound_key_.data() + pair(v, 0), num_sites_,
                              found_.data());
  for (std::size_t f = 0; f < count; ++f) {
    const auto w = static_cast<std::size_t>(found_[f]);
    if (w != v && w < num_sites_) insert(v, w, costs[w] - costs[v], row);
  }
}

template <class Cost>
void DenseArcs<Cost>::rescan(std::size_t u, std::size_t v) {
  ++rescans_;
  const std::size_t a = pair(u, v);
  ShortList& list = lists_[a];
  if (list.slot < 0) {
    list.slot = static_cast<std::int32_t>(pool_.size() / list_length_);
    pool_.resize(pool_.size() + list_length_);
  }
  MoveEntry<Cost>* const first = entries(list);
  const std::vector<std::int32_t>& members = members_.of(u);
  const std::size_t size =
      scan_loops_->smallest_moves(costs_->data() + v, stride_, members.data(), members.size(),
                                  own_.data(), list_length_, first);
  take_list(a, size);
}

template <class Cost>
void DenseArcs<Cost>::take_list(std::size_t a, std::size_t size) {
  ShortList& list = lists_[a];
  const MoveEntry<Cost>* const first = entries(list);
  list.head = 0;
  list.size = static_cast<std::uint8_t>(size);
  if (size == list_length_) {
    set_bound(a, first[size - 1].key, first[size - 1].row);
  } else {
    set_bound(a, kNoPrice<Cost>, -1);
  }
  if (size > 0) {
    set_top(a, first[0].key, first[0].row);
  } else {
    set_top(a, kNoPrice<Cost>, -1);
  }
}

template <class Cost>
void DenseArcs<Cost>::drop_top(std::size_t u, std::size_t v, std::span<const std::int32_t> label) {
  const std::size_t a = pair(u, v);
  ShortList& list = lists_[a];
  if (list.slot >= 0) {
    const MoveEntry<Cost>* const first = entries(list);
    const auto site = static_cast<std::int32_t>(u);
    while (list.head < list.size && label[static_cast<std::size_t>(first[list.head].row)] != site) {
      ++list.head;
    }
    if (list.head < list.size) {
      set_top(a, first[list.head].key, first[list.head].row);
      return;
    }
  }
  set_top(a, bound_key_[a], -1);
}

template <class Cost>
void DenseArcs<Cost>::insert(std::size_t u, std::size_t v, Cost key, std::int32_t row) {
  const std::size_t a = pair(u, v);
  if (!is_below(key, row, bound_key_[a], bound_row_[a])) return;
  if (lists_[a].slot >= 0) {
    insert_in_list(a, key, row);
    return;
  }
  const bool stale = top_row_[a] < 0;
  if (!stale && !is_below(key, row, top_key_[a], top_row_[a])) {
    set_bound(a, key, row);
    return;
  }
  if (!stale) set_bound(a, top_key_[a], top_row_[a]);
  set_top(a, key, row);
}

template <class Cost>
void DenseArcs<Cost>::insert_in_list(std::size_t a, Cost key, std::int32_t row) {
  ShortList& list = lists_[a];
  MoveEntry<Cost>* const first = entries(list);
  std::copy(first + list.head, first + list.size, first);
  std::size_t size = static_cast<std::size_t>(list.size - list.head);
  list.head = 0;
  if (size == list_length_) {
    const MoveEntry<Cost>& last = first[size - 1];
    if (is_below(last.key, last.row, key, row)) {
      // It would fall out at once; unlisted rows now begin with it.
      list.size = static_cast<std::uint8_t>(size);
      set_bound(a, key, row);
      return;
    }
    set_bound(a, last.key, last.row);
  }
  size = insert_sorted(first, size, list_length_, key, row);
  list.size = static_cast<std::uint8_t>(size);
  set_top(a, first[0].key, first[0].row);
}

template class DenseArcs<std::int32_t>;
template class DenseArcs<std::int64_t>;

}  // namespace moefy
