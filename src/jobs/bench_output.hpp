#pragma once

#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "moefy/jobs/context.hpp"

namespace moefy {

/// Seconds of several runs.
struct Spread {
  double min = 0;
  double median = 0;
  double max = 0;
};
Spread spread_of(std::vector<double> values);

/// Wall seconds of `work`.
double timed(const std::function<void()>& work);

/// Every rank's seconds, on all of them the same: by rank, then by run. Collective.
Spread spread_over_ranks(Communicator& comm, const std::vector<double>& mine);

/// Results of a benchmark on rank 0: JSON lines, or `key value` pairs for people.
class BenchOutput {
 public:
  explicit BenchOutput(JobContext& context) : context_(context) {}
  void line(const nlohmann::json& figures);

 private:
  JobContext& context_;
};

nlohmann::json to_json(const Spread& spread);

/// A figure that a benchmark should reach, and whether it did: {"type": "goal", …}.
nlohmann::json goal_line(const std::string& shape, const std::string& figure, double value,
                         double at_most);

}  // namespace moefy
