#include "kmeans_context.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "moefy/core/error.hpp"

namespace moefy {
namespace {

void clear_sums(const KMeansContext& context, SiteSums& sums) {
  sums.clear(context.num_sites, context.dim(), context.sum_scale_log2);
}

/// Marks the sites that rows leave or join; returns how many rows do.
std::size_t mark_moves(std::span<const std::int32_t> before, std::span<const std::int32_t> now,
                       std::vector<char>& site) {
  if (before.empty()) {
    std::fill(site.begin(), site.end(), char{1});
    return now.size();
  }
  std::size_t moves = 0;
  for (std::size_t i = 0; i < now.size(); ++i) {
    if (before[i] == now[i]) continue;
    ++moves;
    site[static_cast<std::size_t>(before[i])] = 1;
    site[static_cast<std::size_t>(now[i])] = 1;
  }
  return moves;
}

// Prices may start anywhere, but costs plus prices have to stay inside an int32 lane. Only their
// differences matter where all sizes are given; with bounds the price level means something, so the
// mean rise is taken off again.
void raise_prices(const KMeansContext& context, std::span<const double> rise,
                  std::vector<std::int32_t>& prices) {
  double level = 0;
  if (!context.capacities.all_equal_bounds()) {
    level = std::accumulate(rise.begin(), rise.end(), 0.0) / static_cast<double>(rise.size());
  }
  std::vector<double> raised(prices.size());
  for (std::size_t j = 0; j < prices.size(); ++j)
    raised[j] = prices[j] + std::rint(rise[j] - level);
  if (context.capacities.all_equal_bounds()) {
    const double lowest = *std::min_element(raised.begin(), raised.end());
    for (double& price : raised) price -= lowest;
  }
  for (std::size_t j = 0; j < prices.size(); ++j) {
    prices[j] = static_cast<std::int32_t>(
        std::clamp(raised[j], -static_cast<double>(kMaxCost), static_cast<double>(kMaxCost)));
  }
}

}  // namespace

void PhaseTimes::add(const char* phase, double seconds) {
  const auto found = std::find_if(seconds_.begin(), seconds_.end(),
                                  [&](const auto& entry) { return entry.first == phase; });
  if (found != seconds_.end()) {
    found->second += seconds;
  } else {
    seconds_.emplace_back(phase, seconds);
  }
}

void KMeansContext::check_stop() const {
  if (stop.stop_requested()) throw Interrupted("stopped during clustering");
}

EarlierCentroids::EarlierCentroids(Backend& backend)
    : base(backend.make_centroids()),
      computed(backend.make_centroids()),
      open_computed(backend.make_centroids()) {}

void EarlierCentroids::resize(std::size_t num_sites, std::size_t dim) {
  for (const auto* centroids : {&base, &computed, &open_computed}) {
    (*centroids)->resize(num_sites, dim);
  }
}

Clustering::Clustering(Backend& backend)
    : sums(backend.make_site_sums()), centroids(backend.make_centroids()) {}

void Clustering::reset(const KMeansContext& context) {
  label.clear();
  clear_sums(context, *sums);
  centroids->resize(context.num_sites, context.dim());
  prices.assign(context.num_sites, 0);
  stale.assign(context.num_sites, 1);
}

std::size_t assign_labels(const KMeansContext& context, RowSelection selection,
                          std::span<const std::int32_t> new_label, Clustering& clustering) {
  const std::size_t changed = mark_moves(clustering.label, new_label, clustering.stale);
  context.times.measure("means", [&] {
    // A moved row is subtracted and added: from half of the rows on, a fresh start costs less.
    if (2 * changed > new_label.size()) {
      clear_sums(context, *clustering.sums);
      clustering.label.clear();
    }
    if (changed > 0) {
      context.backend.update_sums(context.points, selection, clustering.label, new_label,
                                  *clustering.sums);
    }
  });
  clustering.label.assign(new_label.begin(), new_label.end());
  return changed;
}

void update_centroids(const KMeansContext& context, bool predict_prices, Clustering& clustering) {
  context.times.measure("means", [&] {
    std::vector<std::int32_t> sites;
    for (std::size_t j = 0; j < context.num_sites; ++j) {
      if (clustering.sums->count[j] == 0 || clustering.stale[j] == 0) continue;
      sites.push_back(static_cast<std::int32_t>(j));
    }
    const std::vector<double> shift = clustering.sums->move_to_means(sites, *clustering.centroids);
    const double quantum = std::ldexp(1.0, context.cost_scale_log2);
    std::vector<double> rise(context.num_sites, 0);
    for (std::size_t a = 0; a < sites.size(); ++a) {
      rise[static_cast<std::size_t>(sites[a])] = shift[a] * quantum;
    }
    std::fill(clustering.stale.begin(), clustering.stale.end(), char{0});
    if (predict_prices) raise_prices(context, rise, clustering.prices);
  });
}

std::vector<std::int32_t> all_sites(std::size_t num_sites) {
  std::vector<std::int32_t> sites(num_sites);
  std::iota(sites.begin(), sites.end(), 0);
  return sites;
}

}  // namespace moefy
