#include "exact_solver.hpp"
#include "moefy/balance/assignment.hpp"

namespace moefy {

struct AssignmentSolver::Impl {
  explicit Impl(Backend& backend_in) : backend(&backend_in) {}
  Backend* backend;
  ExactSolver<std::int32_t> solver;
};

AssignmentSolver::AssignmentSolver(Backend& backend) : impl_(std::make_unique<Impl>(backend)) {}
AssignmentSolver::~AssignmentSolver() = default;

SolverStatistics AssignmentSolver::solve(const CostView& q, const Capacities& capacities,
                                         bool canonical, std::span<std::int32_t> prices,
                                         std::span<std::int32_t> label) {
  return impl_->solver.solve(BackendCosts(*impl_->backend, q), capacities, canonical, prices,
                             label);
}

SolverStatistics AssignmentSolver::relax(const CostView& q, const Capacities& capacities,
                                         int max_passes, double damping,
                                         std::span<std::int32_t> prices,
                                         std::span<std::int32_t> label) {
  return impl_->solver.relax(BackendCosts(*impl_->backend, q), capacities, max_passes, damping,
                             prices, label);
}

}  // namespace moefy
