#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "moefy/backend/backend.hpp"
#include "moefy/router/router_fitter.hpp"
#include "moefy/split/splitter.hpp"

namespace moefy {

/// The one place that knows every concrete class by its name on the command line.
std::vector<std::string> method_names();
/// UsageError with the nearest names.
std::unique_ptr<Splitter> make_splitter(const std::string& method);

/// Values of --router.
std::vector<std::string> router_names();
/// UsageError with the nearest names.
std::unique_ptr<RouterFitter> make_router_fitter(const std::string& router);

/// Values of --backend: auto, reference, cpu, cuda.
std::vector<std::string> backend_names();
/// reference or cpu: what needs no device. UsageError for others.
std::unique_ptr<Backend> make_backend(const std::string& name, std::size_t num_threads);

}  // namespace moefy
