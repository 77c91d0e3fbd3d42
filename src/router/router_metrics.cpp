#include "moefy/router/router_metrics.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "moefy/backend/linear_algebra.hpp"
#include "moefy/core/error.hpp"
#include "moefy/core/random.hpp"
#include "moefy/router/ridge_router.hpp"
#include "moefy/router/router_fitter.hpp"

namespace moefy {

namespace {

double squared_sum(std::span<const double> values) {
  return std::accumulate(values.begin(), values.end(), 0.0);
}

/// One choice of experts for every token, and what it is worth.
struct Choice {
  Matrix<float> chosen;  ///< [block, experts]
  double captured = 0;   ///< Σ over tokens of the share of the oracle scores
  double recalled = 0;   ///< Σ over tokens of how many of the oracle's experts are chosen
  double energy = 0;     ///< Σ ‖y_e‖² of the chosen
  double missing = 0;    ///< Σ_t ‖y_t - y'_t‖²
};

class Measurement {
 public:
  Measurement(CalibrationTokens& tokens, const NeuronLists& lists, const RouterWeights& router,
              std::int64_t top_k, std::uint64_t seed)
      : tokens_(tokens),
        members_(members_of(lists)),
        shared_(lists.shared_members()),
        router_(router),
        top_k_(static_cast<std::size_t>(top_k)),
        experts_(lists.num_experts()),
        norms_(tokens.layer(), members_, tokens.threads()),
        stream_(seed, static_cast<std::uint64_t>(tokens.layer().info.index),
                RandomPurpose::router_metrics) {}

  std::vector<std::pair<std::string, double>> run() {
    tokens_.for_each_block([&](const CalibrationTokens::Block& block) { add(block); });
    std::vector<std::pair<std::string, double>> figures;
    const auto add_figure = [&](const std::string& name, double value) {
      figures.emplace_back(kRouterMetric + name, value);
    };
    const auto tokens = static_cast<double>(tokens_.num_tokens());
    const auto ratio = [](double part, double whole) { return whole > 0 ? part / whole : 0.0; };
    for (const auto& [suffix, choice] : {std::pair<std::string, const Choice*>{"", &by_router_},
                                         {"_oracle", &by_norm_},
                                         {"_random", &at_random_}}) {
      const Choice& mass = suffix == "_oracle" ? by_score_ : *choice;
      add_figure("captured_mass" + suffix, ratio(mass.captured, scored_tokens_));
      if (suffix != "_oracle")
        add_figure("recall" + suffix,
                   ratio(choice->recalled, tokens * static_cast<double>(top_k_)));
      add_figure("kept_energy" + suffix, ratio(choice->energy, energy_));
      add_figure("output_error" + suffix, ratio(choice->missing, square_));
    }
    std::ranges::sort(figures);
    return figures;
  }

 private:
  void add(const CalibrationTokens::Block& block) {
    const std::size_t count = block.hidden.rows;
    ThreadPool& threads = tokens_.threads();
    for (Matrix<float>* matrix : {&scores_, &oracle_, &norm_}) matrix->resize(count, experts_);
    for (Choice* choice : {&by_router_, &by_score_, &by_norm_, &at_random_})
      choice->chosen.resize(count, experts_);
    router_scores(router_, block.inputs, scores_.view(), threads);
    oracle_scores(block.hidden, members_, oracle_.view(), threads);
    norms_.compute(block.hidden, norm_.view(), threads);
    choose_experts(std::as_const(scores_).view(), top_k_, by_router_.chosen.view(), threads);
    choose_experts(std::as_const(oracle_).view(), top_k_, by_score_.chosen.view(), threads);
    choose_experts(std::as_const(norm_).view(), top_k_, by_norm_.chosen.view(), threads);
    choose_at_random();
    add_scores();
    output_.resize(count, tokens_.layer().hidden_size());
    multiply(block.hidden, tokens_.layer().down.view(), output_.view(), threads);
    square_ += squared_sum(squared_row_norms(output_.view(), threads));
    for (Choice* choice : {&by_router_, &by_norm_, &at_random_})
      choice->missing += missing_square(block.hidden, choice->chosen);
  }

  void choose_at_random() {
    for (float& score : scores_.values()) score = static_cast<float>(stream_.next_unit());
    choose_experts(std::as_const(scores_).view(), top_k_, at_random_.chosen.view(),
                   tokens_.threads());
  }

  void add_scores() {
    for (std::size_t t = 0; t < oracle_.rows(); ++t) {
      double mass = 0;
      for (const float score : oracle_.row(t)) mass += score;
      if (mass > 0) scored_tokens_ += 1;
      for (const float norm : norm_.row(t))
        energy_ += static_cast<double>(norm) * static_cast<double>(norm);
      for (Choice* choice : {&by_router_, &by_score_, &by_norm_, &at_random_}) {
        double captured = 0;
        for (std::size_t e = 0; e < experts_; ++e) {
          if (choice->chosen.row(t)[e] == 0) continue;
          captured += oracle_.row(t)[e];
          choice->recalled += by_score_.chosen.row(t)[e];
          const auto norm = static_cast<double>(norm_.row(t)[e]);
          choice->energy += norm * norm;
        }
        if (mass > 0) choice->captured += captured / mass;
      }
    }
  }

  /// ‖y - y'‖²: the output of what is left out, less what counts more than once.
  double missing_square(MatrixView<const float> hidden, const Matrix<float>& chosen) {
    left_out_.resize(hidden.rows, hidden.cols);
    tokens_.threads().for_each(hidden.rows, [&](std::size_t t) {
      const std::span<const float> from = hidden.row(t);
      const std::span<float> to = left_out_.row(t);
      std::ranges::copy(from, to.begin());
      const auto take_off = [&](std::span<const std::int32_t> list) {
        for (const std::int32_t neuron : list) {
          const auto id = static_cast<std::size_t>(neuron);
          to[id] -= from[id];
        }
      };
      take_off(shared_);
      for (std::size_t e = 0; e < experts_; ++e)
        if (chosen.row(t)[e] != 0) take_off(members_[e]);
    });
    multiply(std::as_const(left_out_).view(), tokens_.layer().down.view(), output_.view(),
             tokens_.threads());
    return squared_sum(squared_row_norms(output_.view(), tokens_.threads()));
  }

  CalibrationTokens& tokens_;
  ExpertMembers members_;
  std::span<const std::int32_t> shared_;
  const RouterWeights& router_;
  std::size_t top_k_;
  std::size_t experts_;
  ExpertNorms norms_;
  RandomStream stream_;
  Matrix<float> scores_, oracle_, norm_, output_, left_out_;
  Choice by_router_, by_score_, by_norm_, at_random_;
  double scored_tokens_ = 0;  ///< tokens with any oracle score
  double energy_ = 0;         ///< Σ ‖y_e‖² of all experts
  double square_ = 0;         ///< Σ ‖y_t‖²
};

}  // namespace

std::vector<std::pair<std::string, double>> measure_router(CalibrationTokens& tokens,
                                                           const NeuronLists& lists,
                                                           const RouterWeights& router,
                                                           std::int64_t top_k, std::uint64_t seed) {
  require(top_k >= 1 && top_k <= static_cast<std::int64_t>(lists.num_experts()),
          "as many chosen experts as there are at most");
  return Measurement(tokens, lists, router, top_k, seed).run();
}

}  // namespace moefy
