#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <span>
#include <stop_token>
#include <string>
#include <utility>
#include <vector>

#include "moefy/backend/backend.hpp"
#include "moefy/balance/assignment.hpp"

namespace moefy {

/// Seconds by phase, in the order of first use.
class PhaseTimes {
 public:
  /// Adds the time that `work` takes to `phase`, and returns what it returns.
  template <class Work>
  auto measure(const char* phase, const Work& work) {
    const Running running(*this, phase);
    return work();
  }
  const std::vector<std::pair<std::string, double>>& seconds() const { return seconds_; }

 private:
  class Running {
   public:
    Running(PhaseTimes& times, const char* phase)
        : times_(times), phase_(phase), start_(std::chrono::steady_clock::now()) {}
    ~Running() {
      const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start_;
      times_.add(phase_, elapsed.count());
    }
    Running(const Running&) = delete;
    Running& operator=(const Running&) = delete;

   private:
    PhaseTimes& times_;
    const char* phase_;
    std::chrono::steady_clock::time_point start_;
  };
  void add(const char* phase, double seconds);
  std::vector<std::pair<std::string, double>> seconds_;
};

/// Memory for centroids of earlier steps, kept between runs.
struct EarlierCentroids {
  std::unique_ptr<Centroids> base;           ///< of the last fp32 costs
  std::unique_ptr<Centroids> computed;       ///< of the costs of all rows
  std::unique_ptr<Centroids> open_computed;  ///< of those of open rows

  explicit EarlierCentroids(Backend& backend);
  void resize(std::size_t num_sites, std::size_t dim);
};

/// What every stage of one run works with.
struct KMeansContext {
  Backend& backend;
  AssignmentSolver& solver;
  Points& points;       ///< the rows as used, after a common mean was subtracted
  Points& open_points;  ///< memory for copies of int8 rows, kept between runs
  EarlierCentroids& earlier;
  const Capacities& capacities;
  std::size_t num_sites;
  int cost_scale_log2;  ///< s: costs are multiples of 2^-s
  int sum_scale_log2;   ///< a: sums are multiples of 2^-a
  bool quantized;       ///< int8 rows are there, and worth it
  PhaseTimes& times;
  AlignedBuffer<float>& training_rows;  ///< memory for a copy of a subsample, kept between runs
  std::stop_token stop;

  std::size_t num_rows() const { return points.rows.rows; }
  std::size_t dim() const { return points.rows.cols; }
  /// Throws Interrupted once a stop is requested.
  void check_stop() const;
};

/// A clustering in progress: labels of the selected rows, and the sums, centroids and prices that
/// follow from them.
struct Clustering {
  std::vector<std::int32_t> label;  ///< by selected row; empty: no labels yet
  std::unique_ptr<SiteSums> sums;
  std::unique_ptr<Centroids> centroids;  ///< [num_sites, dim]
  std::vector<std::int32_t> prices;      ///< [num_sites]
  std::vector<char> stale;               ///< [num_sites] rows came or left since the last means

  explicit Clustering(Backend& backend);
  /// For another run, in the same memory: no labels, prices of zero, centroids undefined.
  void reset(const KMeansContext& context);
};

/// Gives the rows new labels: sums and counts follow. Returns how many changed.
std::size_t assign_labels(const KMeansContext& context, RowSelection selection,
                          std::span<const std::int32_t> new_label, Clustering& clustering);

/// Centroids become the means; an empty site keeps its centroid. With `predict_prices` the squared
/// shift of a centroid, the mean drop of the cost of its members, is added to its price.
void update_centroids(const KMeansContext& context, bool predict_prices, Clustering& clustering);

/// Sites [0, num_sites).
std::vector<std::int32_t> all_sites(std::size_t num_sites);

}  // namespace moefy
