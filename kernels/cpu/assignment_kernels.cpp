#include "cpu/assignment_kernels.hpp"

#include <algorithm>
#include <vector>

#include "cpu/assignment_rows.hpp"
#include "moefy/core/error.hpp"

namespace moefy::cpu {
namespace {

constexpr std::size_t kBlock = 512;  // rows that a thread takes at a time

std::size_t num_blocks(std::size_t num_rows) { return (num_rows + kBlock - 1) / kBlock; }

CostRows rows_from(const CostView& q, std::size_t first, std::size_t count) {
  return {q.row(first), std::min(count, q.num_rows - first), q.num_sites, q.stride};
}

// Prices of all columns, aligned, padding kNoSite.
AlignedBuffer<std::int32_t> padded(std::span<const std::int32_t> prices, const CostView& q) {
  require(prices.size() >= q.num_sites, "one price a site");
  AlignedBuffer<std::int32_t> result(q.stride);
  std::copy_n(prices.begin(), q.num_sites, result.data());
  std::fill(result.data() + q.num_sites, result.data() + q.stride, kNoSite);
  return result;
}

void merge_moves(std::span<const std::int32_t> key, std::span<const std::int32_t> row,
                 std::span<std::int32_t> into_key, std::span<std::int32_t> into_row) {
  for (std::size_t a = 0; a < key.size(); ++a) {
    if (key[a] >= into_key[a]) continue;
    into_key[a] = key[a];
    into_row[a] = row[a];
  }
}

}  // namespace

void best_sites(ThreadPool& threads, InstructionSet set, const CostView& q,
                std::span<const std::int32_t> prices, bool with_margins, SiteChoice& choice) {
  choice.label.resize(q.num_rows);
  choice.best.resize(with_margins ? q.num_rows : 0);
  choice.margin.resize(with_margins ? q.num_rows : 0);
  choice.count.assign(q.num_sites, 0);
  const AlignedBuffer<std::int32_t> price = padded(prices, q);
  const AssignmentRows& loops = assignment_rows(set);
  threads.for_each(num_blocks(q.num_rows), [&](std::size_t block) {
    const std::size_t first = block * kBlock;
    loops.best_sites(rows_from(q, first, kBlock), price.data(), choice.label.data() + first,
                     with_margins ? choice.best.data() + first : nullptr,
                     with_margins ? choice.margin.data() + first : nullptr);
  });
  for (const std::int32_t label : choice.label) ++choice.count[static_cast<std::size_t>(label)];
}

void smallest_moves(ThreadPool& threads, InstructionSet set, const CostView& q,
                    std::span<const std::int32_t> label, std::span<std::int32_t> key,
                    std::span<std::int32_t> row) {
  const std::size_t num_pairs = q.num_sites * q.stride;
  const AssignmentRows& loops = assignment_rows(set);
  std::fill_n(key.begin(), num_pairs, kNoSite);
  std::fill_n(row.begin(), num_pairs, -1);
  // A part has tables of its own, so parts pay only while they have many more rows than sites.
  const std::size_t num_parts =
      std::clamp<std::size_t>(q.num_rows / (8 * q.num_sites), 1, threads.size());
  const std::size_t part_rows = (q.num_rows + num_parts - 1) / num_parts;
  AlignedBuffer<std::int32_t> tables((num_parts - 1) * 2 * num_pairs);
  threads.for_each(num_parts, [&](std::size_t part) {
    const std::size_t first = part * part_rows;
    if (first >= q.num_rows) return;
    std::int32_t* part_key = key.data();
    std::int32_t* part_row = row.data();
    if (part > 0) {
      part_key = tables.data() + (part - 1) * 2 * num_pairs;
      part_row = part_key + num_pairs;
      std::fill_n(part_key, num_pairs, kNoSite);
      std::fill_n(part_row, num_pairs, -1);
    }
    loops.smallest_moves(rows_from(q, first, part_rows), label.data() + first,
                         static_cast<std::int32_t>(first), part_key, part_row);
  });
  for (std::size_t part = 1; part < num_parts && part * part_rows < q.num_rows; ++part) {
    const std::span<std::int32_t> table = tables.span().subspan((part - 1) * 2 * num_pairs);
    merge_moves(table.first(num_pairs), table.subspan(num_pairs, num_pairs), key, row);
  }
}

CertificateSums certificate_sums(ThreadPool& threads, InstructionSet set, const CostView& q,
                                 std::span<const std::int32_t> label,
                                 std::span<const std::int32_t> prices) {
  const AlignedBuffer<std::int32_t> price = padded(prices, q);
  const AlignedBuffer<std::int32_t> cheap_padding =
      padded(std::vector<std::int32_t>(q.num_sites, 0), q);
  const AssignmentRows& loops = assignment_rows(set);
  std::vector<RowCertificate> blocks(num_blocks(q.num_rows));
  threads.for_each(blocks.size(), [&](std::size_t block) {
    const std::size_t first = block * kBlock;
    loops.certificate(rows_from(q, first, kBlock), label.data() + first, price.data(),
                      cheap_padding.data(), &blocks[block]);
  });
  CertificateSums sums;
  for (std::size_t block = 0; block < blocks.size(); ++block) {
    sums.cost += blocks[block].cost;
    sums.row_minima += blocks[block].row_minima;
    sums.unconstrained += blocks[block].unconstrained;
    if (blocks[block].worst > sums.worst) {
      sums.worst = blocks[block].worst;
      sums.worst_row = static_cast<std::int64_t>(block * kBlock) + blocks[block].worst_row;
    }
  }
  return sums;
}

}  // namespace moefy::cpu
