#include <algorithm>
#include <cmath>

#include "moefy/core/error.hpp"
#include "moefy/core/random.hpp"
#include "moefy/router/centroid_router.hpp"
#include "moefy/router/router_fitter.hpp"

namespace moefy {

namespace {

constexpr float kRandomDeviation = 0.02F;

MatrixView<const float> router_rows(const FfnLayer& layer) {
  return layer.gate.rows() > 0 ? layer.gate.view() : layer.up.view();
}

RouterWeights empty_router(const RouterTask& task, const std::string& kind) {
  RouterWeights router;
  router.kind = kind;
  router.weight.resize(task.lists.num_experts(), task.layer.hidden_size());
  std::ranges::fill(router.weight.values(), 0.0F);
  return router;
}

class CentroidFitter : public RouterFitter {
 public:
  std::string name() const override { return "centroid"; }
  RouterWeights fit(const RouterTask& task) const override {
    if (task.config.similarity == "euclidean")
      return fit_euclidean_centroids(router_rows(task.layer), task.lists);
    return fit_centroid_router(router_rows(task.layer), task.lists);
  }
};

/// Directions of the centroids with the length of the layer's own gate rows (the "mean gate" of the
/// MoEfication program, whose length is that of one row).
class MeanGateFitter : public RouterFitter {
 public:
  std::string name() const override { return "mean-gate"; }
  RouterWeights fit(const RouterTask& task) const override {
    RouterWeights router = fit_centroid_router(router_rows(task.layer), task.lists);
    router.kind = name();
    double sum = 0;
    const MatrixView<const float> rows = router_rows(task.layer);
    for (std::size_t i = 0; i < rows.rows; ++i) {
      double squares = 0;
      for (const float value : rows.row(i))
        squares += static_cast<double>(value) * static_cast<double>(value);
      sum += std::sqrt(squares);
    }
    const double scale = sum / static_cast<double>(std::max<std::size_t>(1, rows.rows));
    for (float& value : router.weight.values())
      value = static_cast<float>(static_cast<double>(value) * scale);
    return router;
  }
};

class RandomFitter : public RouterFitter {
 public:
  std::string name() const override { return "random"; }
  RouterWeights fit(const RouterTask& task) const override {
    RouterWeights router = empty_router(task, name());
    RandomStream stream(task.config.seed, static_cast<std::uint64_t>(task.layer.info.index),
                        RandomPurpose::random_router);
    for (float& value : router.weight.values()) value = kRandomDeviation * stream.next_normal();
    return router;
  }
};

/// All experts score the same: for checks that turn all of them on.
class ZeroFitter : public RouterFitter {
 public:
  std::string name() const override { return "zero"; }
  RouterWeights fit(const RouterTask& task) const override { return empty_router(task, name()); }
};

}  // namespace

std::unique_ptr<RouterFitter> make_centroid_fitter() { return std::make_unique<CentroidFitter>(); }
std::unique_ptr<RouterFitter> make_mean_gate_fitter() { return std::make_unique<MeanGateFitter>(); }
std::unique_ptr<RouterFitter> make_random_fitter() { return std::make_unique<RandomFitter>(); }
std::unique_ptr<RouterFitter> make_zero_fitter() { return std::make_unique<ZeroFitter>(); }

double spread_of_rows(const Matrix<float>& weight) {
  double squares = 0;
  for (const float value : weight.values())
    squares += static_cast<double>(value) * static_cast<double>(value);
  return std::sqrt(squares / static_cast<double>(std::max<std::size_t>(1, weight.rows())));
}

}  // namespace moefy
