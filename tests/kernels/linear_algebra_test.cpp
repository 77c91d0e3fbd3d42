// The dense operations on recorded tokens, of every backend.
#include "moefy/backend/linear_algebra.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <optional>

#include "kernels/backends.hpp"
#include "kernels/cublas_choice.hpp"
#include "moefy/backend/cublas.hpp"
#include "moefy/core/error.hpp"

namespace moefy {
namespace {

using test::normal_matrix;

Matrix<float> matrix(std::size_t rows, std::size_t cols, const std::vector<float>& values) {
  Matrix<float> result(rows, cols);
  std::ranges::copy(values, result.values().begin());
  return result;
}

std::vector<float> values_of(const BackendMatrix& matrix) {
  const auto values = matrix.on_host().values();
  return {values.begin(), values.end()};
}

std::vector<double> values_of(const Matrix<double>& matrix) {
  return {matrix.values().begin(), matrix.values().end()};
}

/// The lower triangle, row by row.
std::vector<double> lower_of(const Matrix<double>& matrix) {
  std::vector<double> values;
  for (std::size_t i = 0; i < matrix.rows(); ++i)
    values.insert(values.end(), matrix.row(i).begin(),
                  matrix.row(i).begin() + static_cast<std::ptrdiff_t>(i) + 1);
  return values;
}

/// Within `tolerance` of the largest expected magnitude (or 1).
template <class T>
void expect_close(const std::vector<T>& found, const std::vector<T>& expected, double tolerance) {
  ASSERT_EQ(found.size(), expected.size());
  double largest = 1;
  for (const T value : expected) largest = std::max(largest, std::abs(double{value}));
  for (std::size_t i = 0; i < found.size(); ++i)
    ASSERT_NEAR(found[i], expected[i], tolerance * largest) << "element " << i;
}

constexpr double kFp32 = 1e-5;

/// A backend with matrices of its own; host values live as long as it.
class Algebra {
 public:
  explicit Algebra(std::unique_ptr<Backend> backend) : backend_(std::move(backend)) {}
  LinearAlgebra* operator->() { return &backend_->algebra(); }
  const BackendMatrix& in(Matrix<float> values) {
    host_.push_back(std::make_unique<Matrix<float>>(std::move(values)));
    matrices_.push_back(backend_->algebra().make_matrix());
    matrices_.back()->assign(std::as_const(*host_.back()).view());
    return *matrices_.back();
  }
  BackendMatrix& out() {
    matrices_.push_back(backend_->algebra().make_matrix());
    return *matrices_.back();
  }

 private:
  std::unique_ptr<Backend> backend_;
  std::vector<std::unique_ptr<Matrix<float>>> host_;
  std::vector<std::unique_ptr<BackendMatrix>> matrices_;
};

/// Runs with "reference", "cpu", "cuda" (products by our own kernels) and "cuda-cublas".
class LinearAlgebraTest : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    if (!on_device()) return;
    if (cuda_device_count() == 0) GTEST_SKIP() << "no NVIDIA GPU here";
    const bool own_kernels = GetParam() == "cuda";
    cublas_.emplace(own_kernels);
    if (!own_kernels && describe_cublas().starts_with("no")) GTEST_SKIP() << "no cuBLAS here";
  }
  static bool on_device() { return GetParam().starts_with("cuda"); }
  static Algebra algebra(std::size_t threads = 2) {
    if (on_device()) return Algebra(make_cuda_backend(0, threads));
    return Algebra(GetParam() == "cpu" ? make_cpu_backend(threads)
                                       : make_reference_backend(threads));
  }
  static Algebra reference() { return Algebra(make_reference_backend(1)); }
  /// What `compute` makes of the same values here and on the reference.
  static void agree(const std::function<std::vector<float>(Algebra&)>& compute,
                    double tolerance = kFp32) {
    Algebra found = algebra();
    Algebra expected = reference();
    expect_close(compute(found), compute(expected), tolerance);
  }

 private:
  std::optional<test::CublasChoice> cublas_;
};

struct ProductShape {
  std::size_t rows, cols, depth;
};

/// Around the edges of tiles, warps and blocks.
const std::vector<ProductShape> kShapes{{1, 1, 1},     {31, 33, 32},   {32, 31, 33},  {33, 257, 31},
                                        {257, 65, 17}, {65, 5, 1000},  {1000, 33, 1}, {2, 1000, 64},
                                        {300, 7, 100}, {1030, 1040, 3}};

TEST_P(LinearAlgebraTest, keeps_matrices) {
  Algebra on = algebra();
  const BackendMatrix& assigned = on.in(matrix(2, 3, {1, 2, 3, 4, 5, 6}));
  EXPECT_EQ(values_of(assigned), (std::vector<float>{1, 2, 3, 4, 5, 6}));
  BackendMatrix& changed = on.out();
  changed.resize(2, 2);
  changed.edit([](MatrixView<float> values) { std::ranges::fill(values.values(), 7.0F); });
  EXPECT_EQ(values_of(changed), (std::vector<float>{7, 7, 7, 7}));
  changed.edit([](MatrixView<float> values) { values.row(1)[0] = 8; });
  EXPECT_EQ(values_of(changed), (std::vector<float>{7, 7, 8, 7}));
  EXPECT_EQ(changed.rows(), 2u);
  EXPECT_EQ(on.out().size(), 0u);
}

TEST_P(LinearAlgebraTest, multiplies_by_hand) {
  Algebra on = algebra();
  const BackendMatrix& a = on.in(matrix(2, 3, {1, 2, 3, 4, 5, 6}));
  BackendMatrix& out = on.out();
  on->multiply_transposed(a, on.in(matrix(2, 3, {1, 0, 1, 0, 2, 0})), out);
  EXPECT_EQ(values_of(out), (std::vector<float>{4, 4, 10, 10}));
  on->multiply(a, on.in(matrix(3, 2, {1, 0, 0, 1, 1, 1})), out);
  EXPECT_EQ(values_of(out), (std::vector<float>{4, 5, 10, 11}));
}

TEST_P(LinearAlgebraTest, products_agree_with_the_reference) {
  for (const ProductShape& shape : kShapes) {
    SCOPED_TRACE(testing::Message() << shape.rows << " x " << shape.cols << " x " << shape.depth);
    agree([&](Algebra& on) {
      BackendMatrix& out = on.out();
      on->multiply_transposed(on.in(normal_matrix(shape.rows, shape.depth, 1)),
                              on.in(normal_matrix(shape.cols, shape.depth, 2)), out);
      return values_of(out);
    });
    agree([&](Algebra& on) {
      BackendMatrix& out = on.out();
      on->multiply(on.in(normal_matrix(shape.rows, shape.depth, 1)),
                   on.in(normal_matrix(shape.depth, shape.cols, 2)), out);
      return values_of(out);
    });
  }
}

TEST_P(LinearAlgebraTest, hidden_activations_by_hand) {
  // Four neurons of width 2, gated by ReLU: on (2, 1) they are 6, 4, 3 and 2.
  Algebra on = algebra();
  const BackendMatrix& gate = on.in(matrix(4, 2, {1, 0, 0, 1, 1, 1, 1, -1}));
  const BackendMatrix& up = on.in(matrix(4, 2, {1, 1, 2, 0, 0, 1, 1, 0}));
  const BackendMatrix& inputs = on.in(matrix(2, 2, {2, 1, -1, 0}));
  BackendMatrix& hidden = on.out();
  on->ffn_hidden({&gate, &up, nullptr, nullptr, Activation::relu}, inputs, hidden);
  EXPECT_EQ(values_of(hidden), (std::vector<float>{6, 4, 3, 2, 0, 0, 0, 0}));

  const BackendMatrix& gate_bias = on.in(matrix(1, 4, {1, 0, 0, -1}));
  const BackendMatrix& up_bias = on.in(matrix(1, 4, {-3, 0, 1, -3}));
  on->ffn_hidden({&gate, &up, &gate_bias, &up_bias, Activation::relu}, inputs, hidden);
  EXPECT_EQ(values_of(hidden), (std::vector<float>{0, 4, 6, 0, 0, 0, 0, 0}));
  on->ffn_hidden({nullptr, &up, nullptr, &up_bias, Activation::relu}, inputs, hidden);
  EXPECT_EQ(values_of(hidden), (std::vector<float>{0, 4, 2, 0, 0, 0, 1, 0}));
}

TEST_P(LinearAlgebraTest, hidden_activations_agree_with_the_reference) {
  for (const Activation activation :
       {Activation::gelu, Activation::gelu_tanh, Activation::identity, Activation::leaky_relu,
        Activation::mish, Activation::quick_gelu, Activation::relu, Activation::relu_squared,
        Activation::relu6, Activation::sigmoid, Activation::silu, Activation::tanh}) {
    SCOPED_TRACE(static_cast<int>(activation));
    agree([&](Algebra& on) {
      BackendMatrix& hidden = on.out();
      on->ffn_hidden({&on.in(normal_matrix(33, 9, 1)), &on.in(normal_matrix(33, 9, 2)),
                      &on.in(normal_matrix(1, 33, 3)), &on.in(normal_matrix(1, 33, 4)), activation},
                     on.in(normal_matrix(31, 9, 5)), hidden);
      return values_of(hidden);
    });
  }
  agree([](Algebra& on) {  // large values, and more than a tile of tokens
    Matrix<float> inputs = normal_matrix(300, 5, 5);
    for (float& value : inputs.values()) value *= 40;
    BackendMatrix& hidden = on.out();
    on->ffn_hidden({nullptr, &on.in(normal_matrix(257, 5, 2)), nullptr, nullptr, Activation::mish},
                   on.in(std::move(inputs)), hidden);
    return values_of(hidden);
  });
}

TEST_P(LinearAlgebraTest, squares_by_hand) {
  Algebra on = algebra();
  const BackendMatrix& rows = on.in(matrix(2, 3, {1, 2, -2, 0, 3, 1}));
  EXPECT_EQ(on->squared_row_norms(rows), (std::vector<double>{9, 10}));
  std::vector<double> sums = {0.5, 0, 1};
  on->add_squares_of_columns(rows, sums);
  EXPECT_EQ(sums, (std::vector<double>{1.5, 13, 6}));
  BackendMatrix& out = on.out();
  const std::vector<float> weight = {2, 0.5F};
  on->weighted_squares(rows, weight, out);
  EXPECT_EQ(values_of(out), (std::vector<float>{2, 8, 8, 0, 4.5F, 0.5F}));
}

TEST_P(LinearAlgebraTest, squares_agree_with_the_reference) {
  for (const std::size_t size : test::kSizes) {
    SCOPED_TRACE(size);
    Algebra found = algebra(), expected = reference();
    const auto norms = [&](Algebra& on, std::size_t rows, std::size_t cols) {
      return on->squared_row_norms(on.in(normal_matrix(rows, cols, 1)));
    };
    expect_close(norms(found, 7, size), norms(expected, 7, size), 1e-12);
    expect_close(norms(found, size, 3), norms(expected, size, 3), 1e-12);
    const auto columns = [&](Algebra& on) {
      std::vector<double> sums(size, 1.0);
      on->add_squares_of_columns(on.in(normal_matrix(70, size, 2)), sums);
      return sums;
    };
    expect_close(columns(found), columns(expected), 1e-12);
  }
}

TEST_P(LinearAlgebraTest, gathers_columns) {
  Algebra on = algebra();
  const BackendMatrix& from = on.in(matrix(2, 3, {1, -2, 3, -4, 5, 0}));
  const std::vector<std::int32_t> columns = {2, 0, 1, 1};
  const auto gathered = [&](ValueMap map) {
    BackendMatrix& out = on.out();
    on->gather_columns(from, columns, map, out);
    return values_of(out);
  };
  EXPECT_EQ(gathered(ValueMap::same), (std::vector<float>{3, 1, -2, -2, 0, -4, 5, 5}));
  EXPECT_EQ(gathered(ValueMap::magnitude), (std::vector<float>{3, 1, 2, 2, 0, 4, 5, 5}));
  EXPECT_EQ(gathered(ValueMap::positive), (std::vector<float>{3, 1, 0, 0, 0, 0, 5, 5}));
  EXPECT_EQ(gathered(ValueMap::is_positive), (std::vector<float>{1, 1, 0, 0, 0, 0, 1, 1}));
}

TEST_P(LinearAlgebraTest, scores_of_experts_by_hand) {
  Algebra on = algebra();
  const BackendMatrix& hidden = on.in(matrix(2, 4, {1, -2, 3, 0.5F, 0, 1, 2, -4}));
  const auto lists = on->make_lists({{0, 1}, {}, {2, 3}, {3, 3, 0}}, {1});
  const auto scores = [&](ExpertScore score) {
    BackendMatrix& out = on.out();
    on->expert_scores(hidden, *lists, score, out);
    return values_of(out);
  };
  EXPECT_EQ(scores(ExpertScore::l1), (std::vector<float>{3, 0, 3.5F, 2, 1, 0, 6, 8}));
  EXPECT_EQ(scores(ExpertScore::plain), (std::vector<float>{1, 0, 3.5F, 2, 1, 0, 2, 8}));
  EXPECT_EQ(scores(ExpertScore::positive), (std::vector<float>{1, 0, 3.5F, 2, 1, 0, 2, 0}));
  EXPECT_EQ(scores(ExpertScore::l2), (std::vector<float>{5, 0, 9.25F, 1.5F, 1, 0, 20, 32}));
}

/// Lists of many lengths over `neurons`, one of them empty, some sharing neurons.
ExpertLists::Lists uneven_lists(std::size_t neurons) {
  ExpertLists::Lists lists(4);
  for (std::size_t i = 0; i < neurons; ++i) {
    if (i % 2 == 0) lists[0].push_back(static_cast<std::int32_t>(i));
    if (i % 3 == 0) lists[2].push_back(static_cast<std::int32_t>(neurons - 1 - i));
    if (i == neurons / 2) lists[3].push_back(static_cast<std::int32_t>(i));
  }
  return lists;
}

TEST_P(LinearAlgebraTest, norms_of_experts_are_those_of_their_outputs) {
  // Experts {0, 3} and {1, 2}: outputs (10, 2) and (3, 1); one without neurons.
  Algebra on = algebra();
  const BackendMatrix& down = on.in(matrix(4, 2, {1, 0, 0, 1, 1, -1, 2, 1}));
  const auto lists = on->make_lists({{0, 3}, {}, {1, 2}}, {});
  const auto norms = on->make_expert_norms(down, *lists);
  BackendMatrix& out = on.out();
  norms->compute(on.in(matrix(1, 4, {6, 4, 3, 2})), out);
  expect_close(values_of(out),
               {static_cast<float>(std::sqrt(104.0)), 0, static_cast<float>(std::sqrt(10.0))},
               1e-6);
}

TEST_P(LinearAlgebraTest, norms_and_scores_agree_with_the_reference) {
  for (const std::size_t neurons : test::kSizes) {
    for (const std::size_t tokens : {1, 33}) {
      SCOPED_TRACE(testing::Message() << neurons << " neurons, " << tokens << " tokens");
      agree([&](Algebra& on) {
        const auto lists = on->make_lists(uneven_lists(neurons), {});
        const auto norms = on->make_expert_norms(on.in(normal_matrix(neurons, 20, 1)), *lists);
        BackendMatrix& out = on.out();
        norms->compute(on.in(normal_matrix(tokens, neurons, 2)), out);
        return values_of(out);
      });
      agree([&](Algebra& on) {
        const auto lists = on->make_lists(uneven_lists(neurons), {});
        BackendMatrix& out = on.out();
        on->expert_scores(on.in(normal_matrix(tokens, neurons, 2)), *lists, ExpertScore::l2, out);
        return values_of(out);
      });
    }
  }
}

TEST_P(LinearAlgebraTest, marks_the_largest_and_the_lowest_column_on_ties) {
  Algebra on = algebra();
  const auto marks = [&](Matrix<float> values, std::size_t count, bool magnitudes) {
    BackendMatrix& out = on.out();
    on->mark_largest(on.in(std::move(values)), count, magnitudes, out);
    return values_of(out);
  };
  const std::vector<float> rows = {1, 3, 3, 2, -1, -1, -1, -1};
  EXPECT_EQ(marks(matrix(2, 4, rows), 2, false), (std::vector<float>{0, 1, 1, 0, 1, 1, 0, 0}));
  EXPECT_EQ(marks(matrix(2, 4, rows), 1, false), (std::vector<float>{0, 1, 0, 0, 1, 0, 0, 0}));
  EXPECT_EQ(marks(matrix(2, 4, rows), 0, false), (std::vector<float>{0, 0, 0, 0, 0, 0, 0, 0}));
  EXPECT_EQ(marks(matrix(2, 4, rows), 4, false), (std::vector<float>{1, 1, 1, 1, 1, 1, 1, 1}));
  EXPECT_EQ(marks(matrix(1, 5, {1, -3, 3, 0, 2}), 1, true), (std::vector<float>{0, 1, 0, 0, 0}));
  EXPECT_EQ(marks(matrix(1, 5, {0, -3, 3, -5, 2}), 3, true), (std::vector<float>{0, 1, 1, 1, 0}));
  // Zeros of both signs are equal; infinities are the largest.
  EXPECT_EQ(marks(matrix(1, 3, {-0.0F, 0.0F, -1}), 1, false), (std::vector<float>{1, 0, 0}));
  const float infinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(marks(matrix(1, 4, {-infinity, 3e38F, infinity, infinity}), 2, false),
            (std::vector<float>{0, 0, 1, 1}));
}

TEST_P(LinearAlgebraTest, zero_of_either_sign_is_the_same_to_marks) {
  Algebra on = algebra();
  BackendMatrix& out = on.out();
  on->mark_largest(on.in(matrix(1, 4, {-1, -0.0F, 0, -2})), 1, false, out);
  EXPECT_EQ(values_of(out), (std::vector<float>{0, 1, 0, 0}));
}

TEST_P(LinearAlgebraTest, marks_agree_with_the_reference) {
  for (const std::size_t cols : test::kSizes) {
    for (const std::size_t count : {std::size_t{1}, cols / 3, cols - 1, cols}) {
      SCOPED_TRACE(testing::Message() << count << " of " << cols);
      for (const bool magnitudes : {false, true}) {
        agree(
            [&](Algebra& on) {
              Matrix<float> values = normal_matrix(5, cols, 3);
              for (float& value : values.row(1)) value = std::round(value);  // many ties
              BackendMatrix& marks = on.out();
              on->mark_largest(on.in(std::move(values)), count, magnitudes, marks);
              return values_of(marks);
            },
            0);
      }
    }
  }
}

TEST_P(LinearAlgebraTest, parts_hidden_by_hand) {
  Algebra on = algebra();
  const BackendMatrix& hidden = on.in(matrix(2, 4, {1, 2, 3, 4, 5, 6, 7, 8}));
  const BackendMatrix& chosen = on.in(matrix(2, 2, {1, 0, 0, 1}));
  const std::vector<std::int32_t> label = {0, 1, -1, 1};
  const std::vector<float> factor = {10, 0.5F};
  BackendMatrix& kept = on.out();
  BackendMatrix& missing = on.out();
  on->part_hidden(hidden, chosen, label, {}, kept, nullptr);
  EXPECT_EQ(values_of(kept), (std::vector<float>{1, 0, 3, 0, 0, 6, 7, 8}));
  on->part_hidden(hidden, chosen, label, factor, kept, &missing);
  EXPECT_EQ(values_of(kept), (std::vector<float>{10, 0, 30, 0, 0, 3, 3.5F, 4}));
  EXPECT_EQ(values_of(missing), (std::vector<float>{0, 20, 0, 40, 2.5F, 0, 0, 0}));
}

TEST_P(LinearAlgebraTest, leaves_out_what_runs_as_often_as_it_runs) {
  Algebra on = algebra();
  const BackendMatrix& hidden = on.in(matrix(2, 4, {1, 2, 3, 4, 5, 6, 7, 8}));
  const auto lists = on->make_lists({{0, 1}, {1, 3}, {}}, {2});
  BackendMatrix& out = on.out();
  on->leave_out(hidden, *lists, on.in(matrix(2, 3, {1, 1, 0, 0, 1, 1})), out);
  EXPECT_EQ(values_of(out), (std::vector<float>{0, -2, 0, 0, 5, 0, 0, 0}));
}

TEST_P(LinearAlgebraTest, elementwise_operations_agree_with_the_reference) {
  for (const std::size_t neurons : test::kSizes) {
    SCOPED_TRACE(neurons);
    std::vector<std::int32_t> label, columns;
    for (std::size_t i = 0; i < neurons; ++i) {
      label.push_back(static_cast<std::int32_t>(i % 5) - 1);
      columns.push_back(static_cast<std::int32_t>((i * 7 + 3) % neurons));
    }
    std::vector<float> weight(33);
    for (std::size_t t = 0; t < weight.size(); ++t) weight[t] = 0.1F * static_cast<float>(t);
    agree(
        [&](Algebra& on) {
          const BackendMatrix& hidden = on.in(normal_matrix(33, neurons, 1));
          BackendMatrix& chosen = on.out();
          on->mark_largest(on.in(normal_matrix(33, 4, 2)), 2, false, chosen);
          BackendMatrix &kept = on.out(), &missing = on.out(), &squares = on.out(),
                        &left_out = on.out(), &gathered = on.out();
          on->part_hidden(hidden, chosen, label, weight, kept, &missing);
          on->weighted_squares(hidden, weight, squares);
          const auto lists = on->make_lists(uneven_lists(neurons), {0});
          on->leave_out(hidden, *lists, chosen, left_out);
          on->gather_columns(hidden, columns, ValueMap::magnitude, gathered);
          std::vector<float> all;
          for (const BackendMatrix* part : {&kept, &missing, &squares, &left_out, &gathered}) {
            const std::vector<float> values = values_of(*part);
            all.insert(all.end(), values.begin(), values.end());
          }
          return all;
        },
        0);
  }
}

TEST_P(LinearAlgebraTest, sums_of_blocks_by_hand) {
  Algebra on = algebra();
  const BackendMatrix& a = on.in(matrix(2, 2, {1, 2, 3, 4}));
  const BackendMatrix& b = on.in(matrix(2, 3, {1, 0, 1, 0, 1, 1}));
  const auto product = on->make_product_sum(2, 3);
  product->add(a, b);
  product->add(a, b);
  EXPECT_EQ(values_of(product->read()), (std::vector<double>{2, 6, 8, 4, 8, 12}));
  const std::vector<double> left = {1, 2}, right = {1, 0, 3};
  product->subtract_outer(0.5, left, right);
  EXPECT_EQ(values_of(product->take()), (std::vector<double>{1.5, 6, 6.5, 3, 8, 9}));

  const auto gram = on->make_gram_sum(2);
  gram->add(a);
  gram->add(a, 1, 1);
  EXPECT_EQ(gram->diagonal(), (std::vector<double>{19, 36}));
  gram->subtract_outer(2, left);
  EXPECT_EQ(lower_of(gram->take()), (std::vector<double>{17, 22, 28}));
}

TEST_P(LinearAlgebraTest, clamped_sums_by_hand) {
  Algebra on = algebra();
  const BackendMatrix& a = on.in(matrix(2, 2, {1, 0.5F, 0, 0.25F}));
  const auto open = on->make_gram_sum(2), sum = on->make_gram_sum(2);
  open->add(a);  // 1, 0.5, 0.3125
  sum->add_clamped(*open, 8);
  open->add(a, 0, 1);  // begins at zero again: 1, 0.5, 0.25
  open->add(a, 0, 1);
  sum->add_clamped(*open, 8);
  EXPECT_EQ(lower_of(sum->take()), (std::vector<double>{8 + 8, 4 + 8, 3 + 4}));  // 2.5 becomes 3
}

TEST_P(LinearAlgebraTest, sums_agree_with_the_reference) {
  for (const ProductShape& shape : kShapes) {
    SCOPED_TRACE(testing::Message()
                 << shape.depth << " tokens, " << shape.rows << " x " << shape.cols);
    Algebra found = algebra(), expected = reference();
    const auto sums = [&](Algebra& on) {
      const auto product = on->make_product_sum(shape.rows, shape.cols);
      const BackendMatrix& a = on.in(normal_matrix(shape.depth, shape.rows, 1));
      const BackendMatrix& b = on.in(normal_matrix(shape.depth, shape.cols, 2));
      product->add(a, b);
      product->add(a, b);
      return values_of(product->take());
    };
    expect_close(sums(found), sums(expected), kFp32);
    const auto grams = [&](Algebra& on) {
      const auto gram = on->make_gram_sum(shape.cols);
      const BackendMatrix& a = on.in(normal_matrix(shape.depth, shape.cols, 1));
      gram->add(a);
      gram->add(a, shape.depth / 2, shape.depth - shape.depth / 2);
      return lower_of(gram->take());
    };
    expect_close(grams(found), grams(expected), kFp32);
  }
}

TEST_P(LinearAlgebraTest, solves_a_system_by_hand) {
  // [[4, 2], [2, 3]] · (1, -2) = (0, -4)
  Algebra on = algebra();
  const auto gram = on->make_gram_sum(2);
  gram->add(on.in(matrix(2, 2, {2, 1, 0, 1})));
  gram->add(on.in(matrix(1, 2, {0, 1})));
  const auto rhs = on->make_product_sum(2, 1);
  rhs->add(on.in(matrix(1, 2, {0, -4})), on.in(matrix(1, 1, {1})));

  gram->factor(0)->solve(*rhs);

  expect_close(values_of(rhs->read()), {1, -2}, 1e-12);
  // The sums are as they were: with 4 on the diagonal more, [[8, 2], [2, 7]] · (1, -2).
  const auto other = on->make_product_sum(2, 1);
  other->add(on.in(matrix(1, 2, {4, -12})), on.in(matrix(1, 1, {1})));
  gram->factor(4)->solve(*other);
  expect_close(values_of(other->take()), {1, -2}, 1e-12);
}

/// Solution of a ridge system of n unknowns and m sides, drawn as small whole numbers, so that all
/// backends have the same sums.
std::vector<double> ridge_solution(Algebra& on, std::size_t n, std::size_t m) {
  Matrix<float> a = normal_matrix(n + 20, n, 1), b = normal_matrix(n + 20, m, 2);
  for (Matrix<float>* values : {&a, &b})
    for (float& value : values->values()) value = std::round(2 * value);
  const auto gram = on->make_gram_sum(n);
  const BackendMatrix& rows = on.in(std::move(a));
  gram->add(rows);
  const auto rhs = on->make_product_sum(n, m);
  rhs->add(rows, on.in(std::move(b)));
  ridge_factor(*gram, 0.1)->solve(*rhs);
  return values_of(rhs->take());
}

TEST_P(LinearAlgebraTest, solutions_agree_with_the_reference) {
  for (const std::size_t n : {1, 31, 32, 33, 65, 100, 257}) {
    for (const std::size_t m : {std::size_t{1}, std::size_t{33}}) {
      SCOPED_TRACE(testing::Message() << n << " unknowns, " << m << " sides");
      Algebra found = algebra(), expected = reference();
      expect_close(ridge_solution(found, n, m), ridge_solution(expected, n, m), 1e-10);
    }
  }
}

class LargeSystemTest : public test::BackendTest {};

TEST_P(LargeSystemTest, has_the_solution_of_the_reference) {
  const auto solution = [](Algebra on) {
    constexpr std::size_t kUnknowns = 1000, kRows = 8;  // few, so that sums are quick
    const BackendMatrix& rows = on.in(normal_matrix(kRows, kUnknowns, 1));
    const auto gram = on->make_gram_sum(kUnknowns);
    gram->add(rows);
    const auto rhs = on->make_product_sum(kUnknowns, 1);
    rhs->add(rows, on.in(normal_matrix(kRows, 1, 2)));
    gram->factor(100)->solve(*rhs);
    return values_of(rhs->take());
  };
  expect_close(solution(Algebra(test::make_backend(GetParam(), 2))),
               solution(Algebra(test::make_backend("reference"))), 1e-7);
}

INSTANTIATE_TEST_SUITE_P(Backends, LargeSystemTest, testing::Values("cpu", "cuda"),
                         test::test_suffix);

TEST(CpuAlgebraTest, systems_of_several_tiles_are_solved_alike_by_any_number_of_threads) {
  constexpr std::size_t n = 600, m = 200;  // tiles of 256 unknowns and 96 sides
  const auto solution = [](Algebra on) { return ridge_solution(on, n, m); };
  const std::vector<double> found = solution(Algebra(test::make_backend("portable", 3)));
  EXPECT_EQ(found, solution(Algebra(test::make_backend("portable", 1))));
  expect_close(found, solution(Algebra(test::make_backend("reference"))), 1e-10);
}

TEST(CpuAlgebraTest, what_is_not_definite_is_found_in_any_tile) {
  constexpr std::size_t n = 600;
  Algebra on(test::make_backend("portable", 2));
  const auto identity = [&](float below_the_diagonal) {
    Matrix<float> rows(n, n);
    std::ranges::fill(rows.values(), 0.0F);
    for (std::size_t i = 0; i < n; ++i) rows.row(i)[i] = 1.0F;
    rows.row(n - 1)[n - 2] = below_the_diagonal;
    auto gram = on->make_gram_sum(n);
    gram->add(on.in(std::move(rows)));
    return gram;
  };
  EXPECT_NO_THROW(identity(0.5F)->factor(0));
  EXPECT_THROW(identity(std::numeric_limits<float>::quiet_NaN())->factor(0), InputError);
  const auto negative = identity(0);
  std::vector<double> last(n);
  last.back() = 1;
  negative->subtract_outer(2, last);
  EXPECT_THROW(negative->factor(0), InputError);
}

TEST_P(LinearAlgebraTest, ridge_is_raised_until_the_system_can_be_solved) {
  // [[1, 2], [2, 1]]: mean diagonal 1; the eigenvalues are 3 and -1, so a ridge above 1 is needed.
  Algebra on = algebra();
  const auto gram = on->make_gram_sum(2);
  gram->add(on.in(matrix(2, 2, {2, 1, 0, 2})));  // [[4, 2], [2, 5]]
  const std::vector<double> first = {1, 0}, second = {0, 1};
  gram->subtract_outer(3, first);
  gram->subtract_outer(4, second);
  double used = 0;

  ridge_factor(*gram, 0.5, &used);

  EXPECT_DOUBLE_EQ(used, 5);
}

TEST_P(LinearAlgebraTest, what_cannot_be_solved_is_an_input_error) {
  Algebra on = algebra();
  const auto negative = on->make_gram_sum(40);
  negative->add(on.in(normal_matrix(100, 40, 1)));
  std::vector<double> last(40, 0.0);
  last.back() = 1;
  negative->subtract_outer(1e6, last);
  EXPECT_THROW(negative->factor(0), InputError);
  EXPECT_THROW(on->make_gram_sum(3)->factor(0), InputError);
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    const auto gram = on->make_gram_sum(2);
    gram->add(on.in(matrix(2, 2, {1, 0, 0, bad})));
    EXPECT_THROW(ridge_factor(*gram, 1), InputError);
  }
}

TEST_P(LinearAlgebraTest, results_do_not_depend_on_threads) {
  const auto everything = [&](std::size_t threads) {
    Algebra on = algebra(threads);
    const BackendMatrix& a = on.in(normal_matrix(600, 70, 1));
    const BackendMatrix& b = on.in(normal_matrix(9, 70, 2));
    BackendMatrix &product = on.out(), &norms = on.out();
    on->multiply_transposed(a, b, product);
    const auto lists = on->make_lists({{0, 5, 7}, {1, 2, 3, 4}}, {});
    on->make_expert_norms(on.in(normal_matrix(70, 6, 3)), *lists)->compute(a, norms);
    const auto gram = on->make_gram_sum(70);
    gram->add(a);
    std::vector<double> all = lower_of(gram->take());
    for (const BackendMatrix* part : {&product, &norms}) {
      const std::vector<float> values = values_of(*part);
      all.insert(all.end(), values.begin(), values.end());
    }
    return all;
  };
  EXPECT_EQ(everything(1), everything(3));
}

std::vector<std::string> algebras() {
  std::vector<std::string> names = {"reference", "cpu"};
  if (cuda_is_built()) names.insert(names.end(), {"cuda", "cuda-cublas"});
  return names;
}

INSTANTIATE_TEST_SUITE_P(Backends, LinearAlgebraTest, testing::ValuesIn(algebras()),
                         test::test_suffix);

}  // namespace
}  // namespace moefy
