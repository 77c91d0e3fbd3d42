// How weights enter a backend: bytes as they lie in the file, widened, brought to unit length.
#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>

#include <gtest/gtest.h>

#include "kernels/backends.hpp"

namespace moefy {
namespace {

/// Rows that a backend holds, for the host to look at.
Matrix<float> fetched(Backend& backend, const RowMatrix& rows) {
  const RowsView view = rows.view();
  const auto points = backend.make_points();
  backend.load(*points, view, false);
  std::vector<std::int32_t> all(view.rows);
  std::iota(all.begin(), all.end(), 0);
  Matrix<float> values(view.rows, view.cols);
  backend.read_rows(*points, all, values.view());
  return values;
}

std::vector<std::uint32_t> bits(std::span<const float> values) {
  std::vector<std::uint32_t> all;
  for (const float value : values) all.push_back(std::bit_cast<std::uint32_t>(value));
  return all;
}

/// Memory that a test fills by itself.
void put(RowMatrix& rows, Backend& backend, const Matrix<float>& values) {
  rows.resize(values.rows(), values.cols());
  const auto raw = backend.make_raw_bytes();
  rows.fill_columns(0, values.cols(), [&](const RowsTarget& out) {
    if (raw == nullptr) {
      std::ranges::copy(values.values(), MatrixView<float>(out).values().begin());
      return;
    }
    const auto source = std::as_bytes(values.values());
    raw->resize(source.size());
    raw->receive(0, source.size(),
                 [&](std::span<std::byte> to) { std::ranges::copy(source, to.begin()); });
    raw->finish();
    EXPECT_FALSE(raw->widen(0, {DType::f32, values.rows(), values.cols(), false}, out));
  });
}

/// Bytes of a file's matrix with all kinds of finite values.
std::vector<std::byte> raw_bytes(DType dtype, std::size_t count, std::uint64_t seed) {
  std::vector<std::byte> raw(count * size_of(dtype));
  RandomStream random(seed, 0, RandomPurpose::bench);
  std::vector<float> values(count);
  for (float& value : values) {
    value = random.next_normal() * std::ldexp(1.0F, static_cast<int>(random.next_below(40)) - 30);
  }
  narrow(dtype, values, raw);
  return raw;
}

class RowMatrixTest : public test::BackendTest {};

TEST_P(RowMatrixTest, has_the_norms_of_the_host_bit_for_bit) {
  const auto backend = test::make_backend(GetParam());
  for (const std::size_t n : test::kSizes) {
    for (const std::size_t dim : {1, 15, 16, 17, 100}) {
      const Matrix<float> values = test::normal_matrix(n, dim, n + dim);
      const auto rows = backend->make_rows();
      put(*rows, *backend, values);

      const std::vector<double> norms = rows->squared_norms();

      ASSERT_EQ(norms.size(), n);
      for (std::size_t i = 0; i < n; ++i) ASSERT_EQ(norms[i], squared_norm_of(values.row(i)));
    }
  }
}

TEST_P(RowMatrixTest, keeps_rows_and_brings_them_to_unit_length) {
  const auto backend = test::make_backend(GetParam());
  const auto check = [&](std::size_t n, std::size_t step) {
    SCOPED_TRACE(testing::Message() << "every " << step << "th of " << n);
    Matrix<float> values = test::normal_matrix(n, 37, 3);
    if (n > 1) std::ranges::fill(values.row(21), 0.0F);
    for (const bool unit : {false, true}) {
      std::vector<std::int32_t> kept;
      for (std::size_t i = 0; i < values.rows(); i += step)
        kept.push_back(static_cast<std::int32_t>(i));
      const auto rows = backend->make_rows();
      put(*rows, *backend, values);

      rows->keep(kept, unit);

      ASSERT_EQ(rows->view().rows, kept.size());
      const Matrix<float> found = fetched(*backend, *rows);
      for (std::size_t a = 0; a < kept.size(); ++a) {
        const auto row = values.row(static_cast<std::size_t>(kept[a]));
        const double norm = std::sqrt(squared_norm_of(row));
        const float factor = unit && norm > 0 ? static_cast<float>(1 / norm) : 1.0F;
        for (std::size_t l = 0; l < values.cols(); ++l) ASSERT_EQ(found.row(a)[l], row[l] * factor);
      }
    }
  };
  for (const std::size_t n : test::kSizes) {
    check(n, 1);
    check(n, 3);
  }
}

TEST_P(RowMatrixTest, adds_unit_rows_by_label_in_order) {
  const auto backend = test::make_backend(GetParam());
  for (const std::size_t n : test::kSizes) {
    SCOPED_TRACE(n);
    const Matrix<float> values = test::normal_matrix(n, 33, 5);
    std::vector<std::int32_t> label(n);
    Matrix<double> expected(5, values.cols());
    std::ranges::fill(expected.values(), 0.1);
    Matrix<double> found(5, values.cols());
    std::ranges::fill(found.values(), 0.1);
    for (std::size_t i = 0; i < n; ++i) {
      label[i] = static_cast<std::int32_t>((i * i + 1) % 6) - 1;
      const double factor = 1 / std::sqrt(squared_norm_of(values.row(i)));
      if (label[i] < 0) continue;
      for (std::size_t l = 0; l < values.cols(); ++l) {
        expected.row(static_cast<std::size_t>(label[i]))[l] +=
            factor * static_cast<double>(values.row(i)[l]);
      }
    }
    const auto rows = backend->make_rows();
    put(*rows, *backend, values);

    rows->add_unit_rows(label, found);

    EXPECT_TRUE(std::ranges::equal(found.values(), expected.values()));
  }
}

TEST_P(RowMatrixTest, loads_as_rows_of_the_host_do) {
  const auto backend = test::make_backend(GetParam());
  const Matrix<float> values = test::normal_matrix(130, 40, 7);
  const Matrix<float> centroids = test::normal_matrix(9, 40, 8);
  const auto rows = backend->make_rows();
  put(*rows, *backend, values);
  const auto costs_of = [&](const RowsView& view) {
    const auto points = backend->make_points();
    backend->load(*points, view, true);
    const CostView q = backend->cost_buffer(0, 130, 9);
    backend->costs(*points, centroids.view(), 18, test::all_columns(9), q);
    const CostView costs = backend->on_host(q);
    return std::vector<std::int32_t>(costs.data, costs.data + 130 * costs.stride);
  };

  EXPECT_EQ(costs_of(rows->view()), costs_of(values.view()));
}

INSTANTIATE_TEST_SUITE_P(Backends, RowMatrixTest, testing::ValuesIn(test::all_backends()),
                         test::test_suffix);

class WeightIntakeTest : public test::BackendTest {
 protected:
  void SetUp() override {
    if (!cuda_is_built()) GTEST_SKIP() << "built without CUDA; others take rows from the host";
    BackendTest::SetUp();
    if (IsSkipped()) return;
    backend_ = test::make_backend(GetParam());
    raw_ = backend_->make_raw_bytes();
  }
  /// `bytes` from byte 16 on, in reads of whatever length is asked for.
  void send(std::span<const std::byte> bytes) {
    raw_->resize(16 + bytes.size());
    raw_->receive(16, bytes.size(), [&](std::span<std::byte> to) {
      std::ranges::copy(bytes.first(to.size()), to.begin());
      bytes = bytes.subspan(to.size());
    });
    raw_->finish();
    EXPECT_TRUE(bytes.empty());
  }
  std::optional<BadElement> widen(const RawShape& shape, RowMatrix& rows, std::size_t first,
                                  std::size_t width) {
    std::optional<BadElement> bad;
    rows.resize(shape.num_rows, width);
    rows.fill_columns(first, shape.dim,
                      [&](const RowsTarget& out) { bad = raw_->widen(16, shape, out); });
    return bad;
  }

  std::unique_ptr<Backend> backend_;
  std::unique_ptr<RawBytes> raw_;
};

TEST_P(WeightIntakeTest, widens_every_type_and_orientation_bit_for_bit) {
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
    for (const bool transposed : {false, true}) {
      for (const auto& [n, dim] :
           {std::pair{1, 1}, {31, 33}, {32, 32}, {33, 31}, {257, 17}, {1000, 5}, {5, 300}}) {
        const RawShape shape{dtype, static_cast<std::size_t>(n), static_cast<std::size_t>(dim),
                             transposed};
        const std::size_t count = shape.num_rows * shape.dim;
        const std::vector<std::byte> bytes = raw_bytes(dtype, count, count);
        std::vector<float> in_file(count);
        moefy::widen(dtype, bytes, in_file);
        send(bytes);
        const auto rows = backend_->make_rows();

        EXPECT_FALSE(widen(shape, *rows, 0, shape.dim));

        const Matrix<float> found = fetched(*backend_, *rows);
        for (std::size_t i = 0; i < shape.num_rows; ++i) {
          for (std::size_t l = 0; l < shape.dim; ++l) {
            const std::size_t at = transposed ? l * shape.num_rows + i : i * shape.dim + l;
            ASSERT_EQ(found.row(i)[l], in_file[at]) << name_of(dtype) << ' ' << i << ' ' << l;
          }
        }
      }
    }
  }
}

TEST_P(WeightIntakeTest, widens_every_half_as_the_host_does) {
  std::vector<std::byte> bytes;
  for (unsigned half = 0; half < 0x10000U; ++half) {
    if ((half & 0x7c00U) == 0x7c00U) half += 0x400U;  // infinities and NaN
    if (half >= 0x10000U) break;
    bytes.push_back(static_cast<std::byte>(half & 0xffU));
    bytes.push_back(static_cast<std::byte>(half >> 8));
  }
  const std::size_t count = bytes.size() / 2;
  std::vector<float> expected(count);
  moefy::widen(DType::f16, bytes, expected);
  send(bytes);
  const auto rows = backend_->make_rows();

  EXPECT_FALSE(widen({DType::f16, count / 1024, 1024, false}, *rows, 0, 1024));

  EXPECT_EQ(bits(fetched(*backend_, *rows).values()), bits(expected));
}

TEST_P(WeightIntakeTest, puts_matrices_beside_each_other) {
  const auto rows = backend_->make_rows();
  rows->resize(40, 24);
  for (const std::size_t part : {0, 1, 2}) {
    const Matrix<float> values = test::normal_matrix(40, 8, part);
    send(std::as_bytes(values.values()));
    rows->fill_columns(part * 8, 8, [&](const RowsTarget& out) {
      EXPECT_FALSE(raw_->widen(16, {DType::f32, 40, 8, false}, out));
    });
  }

  const Matrix<float> found = fetched(*backend_, *rows);
  for (const std::size_t part : {0, 1, 2}) {
    const Matrix<float> values = test::normal_matrix(40, 8, part);
    for (std::size_t i = 0; i < 40; ++i) {
      EXPECT_TRUE(std::ranges::equal(found.row(i).subspan(part * 8, 8), values.row(i)));
    }
  }
}

TEST_P(WeightIntakeTest, finds_the_first_bad_element_in_file_order) {
  constexpr std::size_t kRows = 100;
  for (const std::size_t dim : {70, 300}) {
    for (const bool transposed : {false, true}) {
      for (const std::size_t index : {std::size_t{0}, std::size_t{3333}, kRows * dim - 1}) {
        std::vector<float> values(kRows * dim, 1.0F);
        values[index] = std::numeric_limits<float>::infinity();
        values.back() = std::numeric_limits<float>::infinity();
        send(std::as_bytes(std::span<const float>(values)));
        const auto rows = backend_->make_rows();

        const auto bad = widen({DType::f32, kRows, dim, transposed}, *rows, 0, dim);

        ASSERT_TRUE(bad.has_value());
        EXPECT_EQ(bad->index, index);
        EXPECT_TRUE(std::isinf(bad->value));
      }
    }
  }
}

TEST_P(WeightIntakeTest, takes_more_than_its_pinned_blocks_hold) {
  const std::size_t count = (std::size_t{5} << 20) + 3;  // 20 MB
  std::vector<std::byte> bytes(count * 4);
  for (std::size_t i = 0; i < bytes.size(); i += 997) bytes[i] = static_cast<std::byte>(i % 63);
  send(bytes);
  std::vector<float> expected(count);
  moefy::widen(DType::f32, bytes, expected);
  const auto rows = backend_->make_rows();

  EXPECT_FALSE(widen({DType::f32, 1, count, false}, *rows, 0, count));

  EXPECT_EQ(rows->squared_norms()[0], squared_norm_of(expected));
}

INSTANTIATE_TEST_SUITE_P(Backends, WeightIntakeTest, testing::Values("cuda"), test::test_suffix);

}  // namespace
}  // namespace moefy
