#include "moefy/jobs/factories.hpp"

#include "moefy/core/error.hpp"
#include "moefy/core/text.hpp"

namespace moefy {

std::vector<std::string> method_names() { return {"kmeans", "random", "contiguous"}; }

std::unique_ptr<Splitter> make_splitter(const std::string& method) {
  if (method == "kmeans") return make_kmeans_splitter();
  if (method == "random") return make_random_splitter();
  if (method == "contiguous") return make_contiguous_splitter();
  throw UsageError("--method '" + method + "' is unknown" + suggestion(method, method_names()));
}

std::vector<std::string> backend_names() { return {"auto", "reference", "cpu", "cuda"}; }

std::unique_ptr<Backend> make_backend(const std::string& name, std::size_t num_threads) {
  if (name == "reference") return make_reference_backend(num_threads);
  if (name == "cpu") return make_cpu_backend(num_threads);
  throw UsageError("--backend '" + name + "' is unknown" + suggestion(name, backend_names()));
}

}  // namespace moefy
