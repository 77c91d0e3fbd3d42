#include "moefy/backend/auction.hpp"

#include <algorithm>
#include <numeric>

#include "moefy/backend/backend.hpp"
#include "row_loops.hpp"

namespace moefy {

void fit_auction_prices(std::span<std::int32_t> prices) {
  const std::int64_t least = std::ranges::min(prices);
  for (std::int32_t& price : prices) {
    price = static_cast<std::int32_t>(std::min<std::int64_t>(price - least, kMaxCost));
  }
}

AuctionResult AuctionPhase::run(const HostCosts<std::int32_t>& costs, ThreadPool& threads,
                                std::span<const std::int64_t> size, const AuctionLimits& limits,
                                std::span<std::int32_t> prices) {
  const std::span<std::int32_t> used = prices.first(size.size());
  fit_auction_prices(used);
  price_.assign(used.begin(), used.end());
  price_.resize(costs.stride, kNoSite);
  kept_.resize(size.size());
  for (auto& bids : kept_) bids.clear();
  unassigned_.resize(costs.num_rows);
  std::iota(unassigned_.begin(), unassigned_.end(), 0);
  AuctionResult result;
  while (std::ssize(unassigned_) > limits.enough && result.rounds < limits.max_rounds &&
         result.bids < limits.max_bids) {
    ++result.rounds;
    result.bids += std::ssize(unassigned_);
    find_bids(costs, threads, limits.epsilon);
    settle_bids(size);
  }
  result.unassigned = std::ssize(unassigned_);
  std::copy_n(price_.begin(), used.size(), used.begin());
  fit_auction_prices(used);
  return result;
}

void AuctionPhase::find_bids(const HostCosts<std::int32_t>& costs, ThreadPool& threads,
                             std::int32_t epsilon) {
  constexpr std::size_t kBlock = 64;
  const std::size_t count = unassigned_.size();
  site_.resize(count);
  bid_.resize(count);
  threads.for_each((count + kBlock - 1) / kBlock, [&](std::size_t block) {
    for (std::size_t u = block * kBlock; u < std::min(count, (block + 1) * kBlock); ++u) {
      const TwoCheapest found = row_loops().two_cheapest(
          costs.row(static_cast<std::size_t>(unassigned_[u])), price_.data(), costs.stride);
      site_[u] = static_cast<std::int32_t>(found.site);
      bid_[u] = price_[found.site] + (found.second - found.best) + epsilon;
    }
  });
}

void AuctionPhase::settle_bids(std::span<const std::int64_t> size) {
  const auto lowest_first = [](const Bid& a, const Bid& b) { return a.beats(b); };
  evicted_.clear();
  for (std::size_t u = 0; u < unassigned_.size(); ++u) {
    const auto j = static_cast<std::size_t>(site_[u]);
    std::vector<Bid>& kept = kept_[j];
    kept.push_back({bid_[u], unassigned_[u]});
    std::ranges::push_heap(kept, lowest_first);
    if (std::ssize(kept) > size[j]) {
      std::ranges::pop_heap(kept, lowest_first);
      evicted_.push_back(kept.back().row);
      kept.pop_back();
    }
    if (std::ssize(kept) == size[j]) price_[j] = kept.front().value;
  }
  unassigned_.swap(evicted_);
}

}  // namespace moefy
