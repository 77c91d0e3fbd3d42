#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "bindings.hpp"
#include "moefy/balance/balanced_kmeans.hpp"
#include "moefy/core/error.hpp"
#include "moefy/jobs/factories.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace moefy {

namespace {

template <class T>
using Table = nb::ndarray<const T, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

template <class T>
MatrixView<const T> view(const Table<T>& table) {
  return {table.data(), table.shape(0), table.shape(1)};
}

/// An array of one's own for Python.
template <class T>
nb::object numpy_array(const T* values, std::vector<std::size_t> shape) {
  std::size_t count = 1;
  for (const std::size_t extent : shape) count *= extent;
  auto copy = std::make_unique<T[]>(count);
  std::copy_n(values, count, copy.get());
  T* data = copy.release();
  const nb::capsule owner(data, [](void* pointer) noexcept { delete[] static_cast<T*>(pointer); });
  return nb::cast(nb::ndarray<nb::numpy, T>(data, shape.size(), shape.data(), owner));
}

/// Python's integers have as many digits as it takes.
nb::object python_integer(Assignment::Total value) {
  const auto high = static_cast<std::int64_t>(value >> 32);
  const auto low = static_cast<std::int64_t>(value & 0xFFFFFFFF);
  return (nb::int_(high) << nb::int_(32)) + nb::int_(low);
}

/// Sizes of sites [num_sites] as they come from Python.
Capacities capacities_of(const std::vector<std::int64_t>& lower,
                         const std::vector<std::int64_t>& upper) {
  if (lower.size() != upper.size()) throw UsageError("lo and hi must be of equal length");
  std::vector<SizeBounds> bounds;
  for (std::size_t j = 0; j < lower.size(); ++j) {
    if (lower[j] < 0 || upper[j] < lower[j])
      throw UsageError("every site needs 0 <= lo <= hi; site " + std::to_string(j) + " has not");
    bounds.push_back({static_cast<std::size_t>(lower[j]), static_cast<std::size_t>(upper[j])});
  }
  return Capacities::bounded(std::move(bounds));
}

nb::dict assign(const Table<std::int64_t>& costs, const std::vector<std::int64_t>& lower,
                const std::vector<std::int64_t>& upper, const std::vector<std::int64_t>& prices) {
  Assignment found;
  {
    const nb::gil_scoped_release release;
    found = balanced_assign(view(costs), capacities_of(lower, upper), prices);
  }
  nb::dict fields;
  fields["labels"] = numpy_array(found.label.data(), {found.label.size()});
  fields["prices"] = numpy_array(found.price.data(), {found.price.size()});
  fields["cost"] = python_integer(found.cost);
  fields["gap"] = python_integer(found.gap);
  return fields;
}

nb::dict kmeans(const Table<float>& rows, const std::vector<std::int64_t>& lower,
                const std::vector<std::int64_t>& upper, const BalancedKMeansConfig& config,
                std::size_t threads) {
  BalancedKMeansResult found;
  {
    const nb::gil_scoped_release release;
    const std::unique_ptr<Backend> backend = make_backend("cpu", threads);
    found = BalancedKMeans(*backend).run(view(rows), capacities_of(lower, upper), config, 0);
  }
  nb::dict fields;
  fields["labels"] = numpy_array(found.label.data(), {found.label.size()});
  fields["centroids"] = numpy_array(found.centroids.values().data(),
                                    {found.centroids.rows(), found.centroids.cols()});
  fields["inertia"] = found.inertia;
  fields["gap"] = found.duality_gap;
  return fields;
}

}  // namespace

void bind_balance(nb::module_& module) {
  module.def("balanced_assign", &assign, "cost"_a, "lo"_a, "hi"_a, "prices"_a);
  module.def(
      "balanced_kmeans",
      [](const Table<float>& rows, const std::vector<std::int64_t>& lower,
         const std::vector<std::int64_t>& upper, std::uint64_t seed, int restarts,
         const std::string& start, int max_iterations, std::size_t threads) {
        BalancedKMeansConfig config;
        config.start = start_method(start);
        config.num_redo = restarts;
        config.max_iterations = max_iterations;
        config.seed = seed;
        return kmeans(rows, lower, upper, config, threads);
      },
      "x"_a, "lo"_a, "hi"_a, "seed"_a, "restarts"_a, "start"_a, "max_iterations"_a, "threads"_a);
}

}  // namespace moefy
