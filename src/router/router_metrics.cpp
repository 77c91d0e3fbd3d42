#include "moefy/router/router_metrics.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

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
  explicit Choice(LinearAlgebra& algebra) : chosen(algebra.make_matrix()) {}
  std::unique_ptr<BackendMatrix> chosen;  ///< [block, experts]
  double captured = 0;                    ///< Σ over tokens of the share of the oracle scores
  double recalled = 0;  ///< Σ over tokens of how many of the oracle's experts are chosen
  double energy = 0;    ///< Σ ‖y_e‖² of the chosen
  double missing = 0;   ///< Σ_t ‖y_t - y'_t‖²
};

class Measurement {
 public:
  Measurement(CalibrationTokens& tokens, const NeuronLists& lists, const RouterWeights& router,
              std::int64_t top_k, std::uint64_t seed)
      : tokens_(tokens),
        algebra_(tokens.algebra()),
        lists_(algebra_.make_lists(members_of(lists),
                                   {lists.shared_members().begin(), lists.shared_members().end()})),
        router_(router, algebra_),
        top_k_(static_cast<std::size_t>(top_k)),
        experts_(lists.num_experts()),
        norms_(algebra_.make_expert_norms(tokens.ffn().down(), *lists_)),
        scores_(algebra_.make_matrix()),
        oracle_(algebra_.make_matrix()),
        norm_(algebra_.make_matrix()),
        output_(algebra_.make_matrix()),
        left_out_(algebra_.make_matrix()),
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
    router_.choose(block.inputs, top_k_, *by_router_.chosen);
    algebra_.expert_scores(block.hidden, *lists_, kOracleScore, *oracle_);
    norms_->compute(block.hidden, *norm_);
    algebra_.mark_largest(*oracle_, top_k_, false, *by_score_.chosen);
    algebra_.mark_largest(*norm_, top_k_, false, *by_norm_.chosen);
    choose_at_random(block.size());
    add_scores();
    square_ += square_of_output(block.hidden);
    for (Choice* choice : {&by_router_, &by_norm_, &at_random_}) {
      // ‖y - y'‖²: the output of what is left out, less what counts more than once.
      algebra_.leave_out(block.hidden, *lists_, *choice->chosen, *left_out_);
      choice->missing += square_of_output(*left_out_);
    }
  }

  void choose_at_random(std::size_t tokens) {
    scores_->resize(tokens, experts_);
    scores_->edit([&](MatrixView<float> scores) {
      for (float& score : scores.values()) score = static_cast<float>(stream_.next_unit());
    });
    algebra_.mark_largest(*scores_, top_k_, false, *at_random_.chosen);
  }

  void add_scores() {
    const MatrixView<const float> oracle = std::as_const(*oracle_).on_host();
    const MatrixView<const float> norms = std::as_const(*norm_).on_host();
    const MatrixView<const float> best = std::as_const(*by_score_.chosen).on_host();
    for (std::size_t t = 0; t < oracle.rows; ++t) {
      double mass = 0;
      for (const float score : oracle.row(t)) mass += score;
      if (mass > 0) scored_tokens_ += 1;
      for (const float norm : norms.row(t))
        energy_ += static_cast<double>(norm) * static_cast<double>(norm);
      for (Choice* choice : {&by_router_, &by_score_, &by_norm_, &at_random_}) {
        const std::span<const float> chosen = std::as_const(*choice->chosen).on_host().row(t);
        double captured = 0;
        for (std::size_t e = 0; e < experts_; ++e) {
          if (chosen[e] == 0) continue;
          captured += oracle.row(t)[e];
          choice->recalled += best.row(t)[e];
          const auto norm = static_cast<double>(norms.row(t)[e]);
          choice->energy += norm * norm;
        }
        if (mass > 0) choice->captured += captured / mass;
      }
    }
  }

  /// Σ over tokens of the squared length of what `hidden` gives.
  double square_of_output(const BackendMatrix& hidden) {
    algebra_.multiply(hidden, tokens_.ffn().down(), *output_);
    return squared_sum(algebra_.squared_row_norms(*output_));
  }

  CalibrationTokens& tokens_;
  LinearAlgebra& algebra_;
  std::unique_ptr<ExpertLists> lists_;
  RouterOnBackend router_;
  std::size_t top_k_;
  std::size_t experts_;
  std::unique_ptr<ExpertNorms> norms_;
  std::unique_ptr<BackendMatrix> scores_, oracle_, norm_, output_, left_out_;
  RandomStream stream_;
  Choice by_router_{algebra_}, by_score_{algebra_}, by_norm_{algebra_}, at_random_{algebra_};
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
