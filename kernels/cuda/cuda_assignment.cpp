#include "cuda/cuda_backend.hpp"

#include <algorithm>
#include <utility>

#include "cuda/rows_by_label.hpp"
#include "moefy/core/error.hpp"

namespace moefy {
namespace {

cuda::DeviceCosts device_costs(const CostView& q) {
  require(q.space == MemorySpace::device, "the costs are in device memory");
  return {q.data, q.num_rows, q.num_sites, q.stride};
}

/// See cuda::smallest_moves.
MoveEntry<std::int32_t> unpack_move(unsigned long long packed) {
  if (packed == ~0ULL) return {kNoSite, -1};
  const auto move = static_cast<std::int64_t>(packed >> 32) - cuda::kMoveOffset;
  return {static_cast<std::int32_t>(move), static_cast<std::int32_t>(packed & 0xffffffffU)};
}

}  // namespace

void CudaBackend::best_sites(const CostView& q, std::span<const std::int32_t> prices,
                             bool with_margins, SiteChoice& choice) {
  enter();
  const std::size_t n = q.num_rows;
  cuda::DeviceChoice found;
  found.label = label_.resize(n);
  found.count = count_.resize(q.num_sites);
  if (with_margins) {
    found.best = best_.resize(n);
    found.margin = margin_.resize(n);
  }
  stream_.fill(count_.data(), 0, q.num_sites);
  cuda::best_sites(device_costs(q), upload_prices(q, prices), found, stream_.handle());
  const auto label = stream_.download<std::int32_t>(found.label, n);
  const auto best = stream_.download<std::int32_t>(found.best, with_margins ? n : 0);
  const auto margin = stream_.download<std::int32_t>(found.margin, with_margins ? n : 0);
  const auto count = stream_.download<unsigned>(found.count, q.num_sites);
  stream_.wait();
  choice.label.assign(label.begin(), label.end());
  choice.best.assign(best.begin(), best.end());
  choice.margin.assign(margin.begin(), margin.end());
  choice.count.assign(count.begin(), count.end());
}

void CudaBackend::smallest_moves(const CostView& q, std::span<const std::int32_t> label,
                                 std::span<std::int32_t> key, std::span<std::int32_t> row) {
  enter();
  const std::size_t size = q.num_sites * q.stride;
  stream_.fill(moves_.resize(size), 0xff, size);
  cuda::smallest_moves(device_costs(q), upload_labels(label), moves_.data(), stream_.handle());
  const auto least = stream_.download<unsigned long long>(moves_.data(), size);
  stream_.wait();
  for (std::size_t pair = 0; pair < size; ++pair) {
    const MoveEntry<std::int32_t> move = unpack_move(least[pair]);
    key[pair] = move.key;
    row[pair] = move.row;
  }
}

bool CudaBackend::list_moves(const CostView& q, std::span<const std::int32_t> label,
                             std::size_t length, std::vector<MoveEntry<std::int32_t>>& list) {
  require(length >= 1 && length <= 32, "a warp lists at most 32 moves");
  require(label.size() == q.num_rows, "a label for each row of costs");
  enter();
  const std::size_t size = q.num_sites * q.num_sites * length;
  const cuda::RowsByLabel lists = cuda::rows_by_label(label, q.num_sites);
  stream_.upload(std::span(lists.begin), site_begin_.resize(lists.begin.size()));
  stream_.upload(std::span(lists.rows), rows_.resize(lists.rows.size()));
  cuda::list_moves(device_costs(q), {rows_.data(), site_begin_.data()},
                   static_cast<unsigned>(length), moves_.resize(size), stream_.handle());
  const auto moves = stream_.download<unsigned long long>(moves_.data(), size);
  stream_.wait();
  list.resize(size);
  std::ranges::transform(moves, list.begin(), unpack_move);
  return true;
}

CertificateSums CudaBackend::certificate_sums(const CostView& q,
                                              std::span<const std::int32_t> label,
                                              std::span<const std::int32_t> prices) {
  enter();
  stream_.fill(certificate_.resize(1), 0, 1);
  cuda::certificate_sums(device_costs(q), upload_labels(label), upload_prices(q, prices),
                         certificate_.data(), stream_.handle());
  const auto copy = stream_.download<cuda::DeviceCertificate>(certificate_.data(), 1);
  stream_.wait();
  const cuda::DeviceCertificate& found = copy[0];
  CertificateSums sums;
  sums.cost = static_cast<std::int64_t>(found.cost);
  sums.row_minima = static_cast<std::int64_t>(found.row_minima);
  sums.unconstrained = static_cast<std::int64_t>(found.unconstrained);
  if (found.worst != 0) {
    sums.worst = static_cast<std::int64_t>(found.worst >> 32);
    sums.worst_row = static_cast<std::int64_t>(0xffffffffU - (found.worst & 0xffffffffU));
  }
  return sums;
}

PassResult CudaBackend::price_passes(const CostView& q, const SiteRoom& room,
                                     const PassLimits& limits, std::span<std::int32_t> prices,
                                     SiteChoice& choice) {
  const std::size_t n = q.num_rows;
  const std::size_t k = q.num_sites;
  if (n == 0 || k > cuda::kMostPricedSites) {
    return Backend::price_passes(q, room, limits, prices, choice);
  }
  enter();
  cuda::DevicePasses passes;
  stream_.upload(room.lower, room_.resize(2 * k));
  stream_.upload(room.upper, room_.data() + k);
  passes.lower = room_.data();
  passes.upper = room_.data() + k;
  passes.equal_bounds = room.equal_bounds;
  passes.sample_step = pass_sample_step(n);
  passes.prices = upload_prices(q, prices);
  passes.best_prices = price_scratch_.resize(2 * k);
  passes.change = price_scratch_.data() + k;
  passes.choice.label = label_.resize(n);
  passes.choice.best = best_.resize(n);
  passes.choice.margin = margin_.resize(n);
  passes.choice.count = count_.resize(2 * k);
  passes.outcome = outcome_.resize(1);
  stream_.fill(count_.data(), 0, 2 * k);
  cuda::price_passes(device_costs(q), passes, limits, stream_.handle());
  const auto outcome = stream_.download<cuda::PassOutcome>(passes.outcome, 1);
  const auto best_prices = stream_.download<std::int32_t>(passes.prices, k);
  const auto label = stream_.download<std::int32_t>(passes.choice.label, n);
  const auto counts = stream_.download<unsigned>(passes.choice.count, 2 * k);
  stream_.wait();
  std::ranges::copy(best_prices, prices.begin());
  choice.label.assign(label.begin(), label.end());
  const auto count = counts.subspan(static_cast<std::size_t>(outcome[0].last_count) * k, k);
  choice.count.assign(count.begin(), count.end());
  return {outcome[0].imbalance_before, outcome[0].imbalance, outcome[0].passes};
}

AuctionResult CudaBackend::auction_phase(const CostView& q, std::span<const std::int64_t> size,
                                         const AuctionLimits& limits,
                                         std::span<std::int32_t> prices) {
  const std::size_t n = q.num_rows;
  const std::size_t k = q.num_sites;
  if (n == 0 || k > cuda::kMostPricedSites) {
    return Backend::auction_phase(q, size, limits, prices);
  }
  enter();
  fit_auction_prices(prices.first(k));
  first_place_.assign(1, 0);
  for (const std::int64_t places : size) {
    first_place_.push_back(first_place_.back() + static_cast<std::int32_t>(places));
  }
  std::int32_t* memory = auction_.resize(8 * n + 3 * k + 4);
  const auto take = [&memory](std::size_t count) { return std::exchange(memory, memory + count); };
  cuda::DeviceAuction auction;
  std::int32_t* const first_place = take(k + 1);
  stream_.upload(std::span<const std::int32_t>(first_place_), first_place);
  auction.first_place = first_place;
  auction.prices = upload_prices(q, prices);
  auction.waiting[0] = take(n);
  auction.waiting[1] = take(n);
  auction.site = take(n);
  auction.bid = take(n);
  auction.num_new = take(k);
  auction.num_kept = take(k);
  auction.kept = {take(n), take(n)};
  auction.rivals = {take(n), take(n)};
  auction.num_waiting = take(2);
  auction.num_rivals = take(1);
  auction.result = auction_result_.resize(1);
  cuda::auction_phase(device_costs(q), auction, limits, stream_.handle());
  const auto last_prices = stream_.download<std::int32_t>(auction.prices, k);
  const auto result = stream_.download<AuctionResult>(auction.result, 1);
  stream_.wait();
  std::ranges::copy(last_prices, prices.begin());
  fit_auction_prices(prices.first(k));
  return result[0];
}

std::int64_t CudaBackend::total_cost(const CostView& q, std::span<const std::int32_t> label) {
  enter();
  stream_.fill(total_.resize(1), 0, 1);
  cuda::total_cost(device_costs(q), upload_labels(label), total_.data(), stream_.handle());
  const auto total = stream_.download<unsigned long long>(total_.data(), 1);
  stream_.wait();
  return static_cast<std::int64_t>(total[0]);
}

std::vector<std::int32_t> CudaBackend::tied_rows(const CostView& q,
                                                 std::span<const std::int32_t> label,
                                                 std::span<const std::int32_t> prices) {
  enter();
  // Ties are rare: what comes along with their number is nearly always all of them.
  constexpr std::size_t kExpected = 1024;
  const std::size_t num_expected = std::min(q.num_rows, kExpected);
  stream_.fill(count_.resize(1), 0, 1);
  stream_.fill(rows_.resize(q.num_rows), 0, num_expected);
  cuda::tied_rows(device_costs(q), upload_labels(label), upload_prices(q, prices), rows_.data(),
                  count_.data(), stream_.handle());
  const auto count = stream_.download<unsigned>(count_.data(), 1);
  const auto some = stream_.download<std::int32_t>(rows_.data(), num_expected);
  stream_.wait();
  const std::size_t num_tied = count[0];
  std::vector<std::int32_t> rows(some.begin(), some.begin() + std::min(num_tied, some.size()));
  if (num_tied > some.size()) {
    const auto rest =
        stream_.download<std::int32_t>(rows_.data() + rows.size(), num_tied - rows.size());
    stream_.wait();
    rows.insert(rows.end(), rest.begin(), rest.end());
  }
  std::ranges::sort(rows);
  return rows;
}

}  // namespace moefy
