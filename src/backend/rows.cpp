#include "moefy/backend/rows.hpp"

#include <algorithm>

#include "moefy/core/error.hpp"

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
  }
  RowsView view() const override { return rows_.view(); }

  void fill_columns(std::size_t first, std::size_t width,
                    const std::function<void(RowsTarget)>& fill) override {
    if (width == rows_.cols()) return fill(rows_.view());
    Matrix<float> part(rows_.rows(), width);
    fill(part.view());
    for_rows(threads_, rows_.rows(), [&](std::size_t i) {
      std::ranges::copy(part.row(i), rows_.row(i).subspan(first, width).begin());
    });
  }

  std::vector<double> squared_norms() override {
    std::vector<double> norms(rows_.rows());
    for_rows(threads_, norms.size(),
             [&](std::size_t i) { norms[i] = squared_norm_of(rows_.row(i)); });
    return norms;
  }

  void keep(std::span<const std::int32_t> rows, std::span<const float> factor) override {
    if (rows.size() < rows_.rows()) {
      for (std::size_t a = 0; a < rows.size(); ++a) {
        const auto from = static_cast<std::size_t>(rows[a]);
        if (from != a) std::ranges::copy(rows_.row(from), rows_.row(a).begin());
      }
      rows_.resize(rows.size(), rows_.cols());
    }
    for_rows(threads_, rows.size(), [&](std::size_t a) {
      if (factor[a] == 1) return;
      for (float& value : rows_.row(a)) value *= factor[a];
    });
  }

  void add_label_sums(std::span<const std::int32_t> label, std::span<const double> factor,
                      Matrix<double>& sum) override {
    for (std::size_t i = 0; i < label.size(); ++i) {
      if (label[i] < 0) continue;
      const std::span<const float> row = rows_.row(i);
      const std::span<double> target = sum.row(static_cast<std::size_t>(label[i]));
      for (std::size_t l = 0; l < row.size(); ++l) {
        target[l] += factor[i] * static_cast<double>(row[l]);
      }
    }
  }

 private:
  ThreadPool& threads_;
  Matrix<float> rows_;
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
  constexpr std::size_t kParts = 16;
  double part[kParts] = {};
  std::size_t l = 0;
  for (; l + kParts <= row.size(); l += kParts) {
    for (std::size_t p = 0; p < kParts; ++p) {
      part[p] += static_cast<double>(row[l + p]) * static_cast<double>(row[l + p]);
    }
  }
  for (std::size_t p = 0; l < row.size(); ++l, ++p) {
    part[p] += static_cast<double>(row[l]) * static_cast<double>(row[l]);
  }
  for (std::size_t half = kParts / 2; half > 0; half /= 2) {
    for (std::size_t p = 0; p < half; ++p) part[p] += part[p + half];
  }
  return part[0];
}

std::unique_ptr<RowMatrix> make_host_rows(ThreadPool& threads) {
  return std::make_unique<HostRows>(threads);
}

}  // namespace moefy
