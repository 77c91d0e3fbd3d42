#include "tie_graph.hpp"

#include <bit>
#include <limits>
#include <utility>

#include "moefy/core/error.hpp"

namespace moefy {
namespace {

constexpr std::size_t kNone = std::numeric_limits<std::size_t>::max();

template <class Body>
void for_each_bit(std::uint64_t word, std::size_t first, Body body) {
  for (; word != 0; word &= word - 1) {
    body(first + static_cast<std::size_t>(std::countr_zero(word)));
  }
}

std::uint64_t hash(const BitSet& set) {
  std::uint64_t value = 0;
  for (const std::uint64_t word : set.words()) {
    value = (std::rotl(value, 23) ^ word) * 0x9E3779B97F4A7C15ULL;
  }
  return value;
}

// The smallest element of both sets below `end`.
std::size_t smallest_common(const BitSet& a, const BitSet& b, std::size_t end) {
  for (std::size_t w = 0; w < a.words().size() && w * 64 < end; ++w) {
    const std::uint64_t both = a.words()[w] & b.words()[w];
    if (both == 0) continue;
    const std::size_t i = w * 64 + static_cast<std::size_t>(std::countr_zero(both));
    return i < end ? i : kNone;
  }
  return kNone;
}

}  // namespace

TieGraph::TieGraph(std::size_t num_sites)
    : num_sites_(num_sites),
      classes_at_(num_sites),
      num_classes_(num_sites * num_sites, 0),
      entering_(num_sites + 1, BitSet(num_sites + 1)),
      leaving_(num_sites + 1),
      visited_(num_sites + 1),
      next_(num_sites + 1, kNone) {}

std::int32_t TieGraph::class_of(const BitSet& sites) {
  std::vector<std::int32_t>& same_hash = class_by_hash_[hash(sites)];
  for (const std::int32_t known : same_hash) {
    if (sites_of(known) == sites) return known;
  }
  class_sites_.push_back(sites);
  same_hash.push_back(static_cast<std::int32_t>(class_sites_.size() - 1));
  return same_hash.back();
}

const BitSet& TieGraph::sites_of(std::int32_t tie_class) const {
  return class_sites_[static_cast<std::size_t>(tie_class)];
}

void TieGraph::add(std::int32_t row, std::int32_t tie_class, std::size_t site) {
  Bucket& bucket = buckets_[bucket_key(tie_class, site)];
  if (bucket.rows.empty()) {
    bucket.place = classes_at_[site].size();
    classes_at_[site].push_back(tie_class);
    change_arcs(site, tie_class, 1);
  }
  const auto i = static_cast<std::size_t>(row);
  if (position_.size() <= i) position_.resize(i + 1);
  position_[i] = bucket.rows.size();
  bucket.rows.push_back(row);
}

void TieGraph::remove(std::int32_t row, std::int32_t tie_class, std::size_t site) {
  Bucket& bucket = buckets_[bucket_key(tie_class, site)];
  const std::size_t place = position_[static_cast<std::size_t>(row)];
  const std::int32_t last = bucket.rows.back();
  bucket.rows[place] = last;
  position_[static_cast<std::size_t>(last)] = place;
  bucket.rows.pop_back();
  if (!bucket.rows.empty()) return;
  std::vector<std::int32_t>& classes = classes_at_[site];
  const std::int32_t moved = classes.back();
  classes[bucket.place] = moved;
  buckets_[bucket_key(moved, site)].place = bucket.place;
  classes.pop_back();
  change_arcs(site, tie_class, -1);
}

void TieGraph::change_arcs(std::size_t u, std::int32_t tie_class, std::int32_t sign) {
  const auto words = sites_of(tie_class).words();
  for (std::size_t w = 0; w < words.size(); ++w) {
    for_each_bit(words[w], w * 64, [&](std::size_t v) {
      std::int32_t& count = num_classes_[u * num_sites_ + v];
      count += sign;
      if (sign > 0 && count == 1) entering_[v].insert(u);
      if (count == 0) entering_[v].erase(u);
    });
  }
  update_leaving(u);
}

void TieGraph::update_leaving(std::size_t u) {
  if (!classes_at_[u].empty() || entering_[num_sites_].contains(u)) {
    leaving_.insert(u);
  } else {
    leaving_.erase(u);
  }
}

std::pair<std::int32_t, std::int32_t> TieGraph::some_row(std::size_t u, std::size_t v) const {
  for (const std::int32_t tie_class : classes_at_[u]) {
    if (!sites_of(tie_class).contains(v)) continue;
    return {buckets_.at(bucket_key(tie_class, u)).rows.back(), tie_class};
  }
  throw InternalError("an arc of the tie graph has no row");
}

void TieGraph::set_slack_arc(std::size_t u, std::size_t v, bool open) {
  if (open) {
    entering_[v].insert(u);
  } else {
    entering_[v].erase(u);
  }
  if (v == num_sites_) update_leaving(u);
}

// Visits the nodes with an arc to v; true as soon as `wanted` is among them.
bool TieGraph::expand(std::size_t v, std::size_t wanted) {
  if (entering_[v].contains(wanted)) {
    next_[wanted] = v;
    return true;
  }
  const auto entering = std::as_const(entering_[v]).words();
  const auto visited = visited_.words();
  for (std::size_t w = 0; w < entering.size(); ++w) {
    const std::uint64_t fresh = entering[w] & ~visited[w];
    visited[w] |= fresh;
    for_each_bit(fresh, w * 64, [&](std::size_t u) {
      next_[u] = v;
      queue_.push_back(u);
    });
  }
  return false;
}

std::vector<std::size_t> TieGraph::path_from_smallest(const BitSet& targets, std::size_t end) {
  const std::size_t wanted = smallest_common(targets, leaving_, end);
  if (wanted == kNone) return {};
  visited_.clear();
  visited_.insert(end);
  queue_.assign(1, end);
  bool found = false;
  for (std::size_t head = 0; head < queue_.size() && !found; ++head) {
    found = expand(queue_[head], wanted);
  }
  const std::size_t start = found ? wanted : smallest_common(targets, visited_, end);
  if (start == kNone) return {};
  std::vector<std::size_t> path{start};
  while (path.back() != end) path.push_back(next_[path.back()]);
  return path;
}

}  // namespace moefy
