#pragma once

#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

namespace moefy {

/// A set of small integers as bits.
class BitSet {
 public:
  explicit BitSet(std::size_t size = 0) : words_((size + 63) / 64, 0) {}
  void insert(std::size_t i) { words_[i / 64] |= std::uint64_t{1} << i % 64; }
  void erase(std::size_t i) { words_[i / 64] &= ~(std::uint64_t{1} << i % 64); }
  bool contains(std::size_t i) const { return (words_[i / 64] >> i % 64 & 1) != 0; }
  void clear() { words_.assign(words_.size(), 0); }
  std::span<const std::uint64_t> words() const { return words_; }
  std::span<std::uint64_t> words() { return words_; }
  bool operator==(const BitSet&) const = default;

 private:
  std::vector<std::uint64_t> words_;
};

/// Which sites can pass rows on to which at no cost: an arc u -> v for every free row that is at u
/// and ties with v. Rows with the same set of tied sites are one class with a list of rows per
/// site, so that many equal rows cost no more than one of them. Node `num_sites` is the slack node.
class TieGraph {
 public:
  explicit TieGraph(std::size_t num_sites);

  /// The class of rows that tie between exactly these sites (bits below num_sites).
  std::int32_t class_of(const BitSet& sites);
  const BitSet& sites_of(std::int32_t tie_class) const;

  void add(std::int32_t row, std::int32_t tie_class, std::size_t site);
  void remove(std::int32_t row, std::int32_t tie_class, std::size_t site);
  /// A free row at u that ties with v, and its class; there must be an arc u -> v.
  std::pair<std::int32_t, std::int32_t> some_row(std::size_t u, std::size_t v) const;
  /// Opens or closes an arc from or to the slack node.
  void set_slack_arc(std::size_t u, std::size_t v, bool open);

  /// The smallest of `targets` (bits) below `end` from which a path leads to site `end`; the path,
  /// both ends included, or nothing.
  std::vector<std::size_t> path_from_smallest(const BitSet& targets, std::size_t end);

 private:
  struct Bucket {
    std::vector<std::int32_t> rows;
    std::size_t place = 0;  // of the class in classes_at_
  };

  std::uint64_t bucket_key(std::int32_t tie_class, std::size_t site) const {
    return static_cast<std::uint64_t>(tie_class) * num_sites_ + site;
  }
  void change_arcs(std::size_t u, std::int32_t tie_class, std::int32_t sign);
  void update_leaving(std::size_t u);
  bool expand(std::size_t v, std::size_t wanted);

  std::size_t num_sites_;
  std::vector<BitSet> class_sites_;
  std::unordered_map<std::uint64_t, std::vector<std::int32_t>> class_by_hash_;
  std::unordered_map<std::uint64_t, Bucket> buckets_;
  std::vector<std::vector<std::int32_t>> classes_at_;  // with free rows there
  std::vector<std::size_t> position_;                  // of a row in its bucket
  std::vector<std::int32_t> num_classes_;              // [num_sites²] classes behind an arc
  std::vector<BitSet> entering_;                       // [num_sites + 1] u of arcs u -> v
  BitSet leaving_;                                     // sites with any arc out of them
  BitSet visited_;
  std::vector<std::size_t> next_;  // of a visited node on its path
  std::vector<std::size_t> queue_;
};

}  // namespace moefy
