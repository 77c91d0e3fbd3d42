#include "moefy/backend/rows.hpp"

#include <algorithm>
#include <cmath>
#include <optional>

#include "moefy/core/error.hpp"
#include "row_loops.hpp"

namespace moefy {
namespace {

constexpr std::size_t kTile = 256;

/// Calls body(i) for every row, in tiles.
template <class Body>
void for_rows(ThreadPool& threads, std::size_t num_rows, const Body& body) {
  threads.for_each((num_rows + kTile - 1) / kTile, [&](std::size_t tile) {
    for (std::size_t i = tile * kTile; i < std::min(num_rows, (tile + 1) * kTile); ++i) body(i);
  });
}

class HostRows final : public RowMatrix {
 public:
  explicit HostRows(ThreadPool& threads) : threads_(threads) {}

  void resize(std::size_t num_rows, std::size_t dim, std::span<const std::int32_t>) override {
    rows_.resize(num_rows, dim);
    squared_norms_.reset();
  }
  RowsView view() const override { return rows_.view(); }

  void fill_columns(std::size_t first, std::size_t width,
                    const std::function<void(RowsTarget)>& fill) override {
    squared_norms_.reset();
    if (width == rows_.cols()) return fill(rows_.view());
    Matrix<float> part(rows_.rows(), width);
    fill(part.view());
    for_rows(threads_, rows_.rows(), [&](std::size_t i) {
      std::ranges::copy(part.row(i), rows_.row(i).subspan(first, width).begin());
    });
  }

  std::vector<double> squared_norms() override {
    if (!squared_norms_) {
      squared_norms_.emplace(rows_.rows());
      for_rows(threads_, rows_.rows(),
               [&](std::size_t i) { (*squared_norms_)[i] = squared_norm_of(rows_.row(i)); });
    }
    return *squared_norms_;
  }

  void keep(std::span<const std::int32_t> rows, bool unit) override {
    const bool all = rows.size() == rows_.rows();
    if (!all) {
      for (std::size_t a = 0; a < rows.size(); ++a) {
        const auto from = static_cast<std::size_t>(rows[a]);
        if (from == a) continue;
        std::ranges::copy(rows_.row(from), rows_.row(a).begin());
        if (squared_norms_) (*squared_norms_)[a] = (*squared_norms_)[from];
      }
      rows_.resize(rows.size(), rows_.cols());
    }
    if (unit) {
      for_rows(threads_, rows.size(), [&](std::size_t a) {
        const auto factor = static_cast<float>(unit_factor(squared_norm(a)));
        if (factor == 1) return;
        for (float& value : rows_.row(a)) value *= factor;
      });
    }
    if (unit || !all) squared_norms_.reset();
  }

  void add_unit_rows(std::span<const std::int32_t> label, Matrix<double>& sum) override {
    const auto add_scaled = row_loops().add_scaled;
    for (std::size_t i = 0; i < label.size(); ++i) {
      if (label[i] < 0) continue;
      const std::span<double> target = sum.row(static_cast<std::size_t>(label[i]));
      add_scaled(unit_factor(squared_norm(i)), rows_.row(i).data(), rows_.cols(), target.data());
    }
  }

 private:
  /// Of row i alone, which is then at hand: a pass over all rows costs more than the sum.
  double squared_norm(std::size_t i) const {
    return squared_norms_ ? (*squared_norms_)[i] : squared_norm_of(rows_.row(i));
  }

  ThreadPool& threads_;
  Matrix<float> rows_;
  std::optional<std::vector<double>> squared_norms_;  ///< of the rows as they are
};

}  // namespace

MatrixView<const float> RowsView::on_host() const {
  require(space == MemorySpace::host, "the rows are in host memory");
  return {data, rows, cols};
}

RowsTarget::operator MatrixView<float>() const {
  require(space == MemorySpace::host && stride == cols, "rows in host memory, one after another");
  return {data, rows, cols};
}

double squared_norm_of(std::span<const float> row) {
  return row_loops().squared_norm(row.data(), row.size());
}

double unit_factor(double squared_norm) {
  return squared_norm == 0 ? 1.0 : 1 / std::sqrt(squared_norm);
}

std::unique_ptr<RowMatrix> make_host_rows(ThreadPool& threads) {
  return std::make_unique<HostRows>(threads);
}

}  // namespace moefy
