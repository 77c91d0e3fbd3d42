#include "moefy/jobs/factories.hpp"

#include "moefy/core/error.hpp"
#include "moefy/core/text.hpp"

namespace moefy {

std::vector<std::string> method_names() {
  return {"kmeans",     "random",   "contiguous", "coactivation",
          "activation", "gradient", "routed",     "prune"};
}

std::unique_ptr<Splitter> make_splitter(const std::string& method) {
  if (method == "kmeans") return make_kmeans_splitter();
  if (method == "random") return make_random_splitter();
  if (method == "contiguous") return make_contiguous_splitter();
  if (method == "coactivation") return make_coactivation_splitter();
  if (method == "activation") return make_activation_splitter();
  if (method == "gradient") return make_gradient_splitter();
  if (method == "routed") return make_routed_splitter();
  if (method == "prune") return make_prune_splitter();
  throw UsageError("--method '" + method + "' is unknown" + suggestion(method, method_names()));
}

std::vector<std::string> router_names() {
  return {"ridge", "centroid", "mean-gate", "random", "zero", "mlp", "mlp-topk"};
}

std::unique_ptr<RouterFitter> make_router_fitter(const std::string& router) {
  if (router == "ridge") return make_ridge_fitter();
  if (router == "centroid") return make_centroid_fitter();
  if (router == "mean-gate") return make_mean_gate_fitter();
  if (router == "random") return make_random_fitter();
  if (router == "zero") return make_zero_fitter();
  if (router == "mlp") return make_mlp_fitter();
  if (router == "mlp-topk") return make_mlp_topk_fitter();
  throw UsageError("--router '" + router + "' is unknown" + suggestion(router, router_names()));
}

std::vector<std::string> backend_names() { return {"auto", "reference", "cpu", "cuda"}; }

std::unique_ptr<Backend> make_backend(const std::string& name, std::size_t num_threads) {
  if (name == "reference") return make_reference_backend(num_threads);
  if (name == "cpu") return make_cpu_backend(num_threads);
  throw UsageError("--backend '" + name + "' is unknown" + suggestion(name, backend_names()));
}

}  // namespace moefy
