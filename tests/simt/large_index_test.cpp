// Kernels whose elements lie more than 2^32 elements apart. The memory is mapped, and a page of it
// exists only where a kernel reads or writes.
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "cuda/assignment_kernels.hpp"
#include "cuda/cost_kernels.hpp"
#include "cuda/intake_kernels.hpp"
#include "cuda/row_kernels.hpp"
#include "cuda/runtime.hpp"
#include "cuda/sum_kernels.hpp"
#include "moefy/backend/rows.hpp"
#include "sanitizers.hpp"
#include "simt.hpp"

#if !SIMT_THREAD_SANITIZER  // mapping so much takes it too long
namespace moefy {
namespace {

/// Zeros.
template <class T>
class Sparse {
 public:
  explicit Sparse(std::size_t size) : bytes_(size * sizeof(T)) {
    void* const memory = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory != MAP_FAILED) data_ = static_cast<T*>(memory);
  }
  ~Sparse() {
    if (data_ != nullptr) munmap(data_, bytes_);
  }
  Sparse(const Sparse&) = delete;
  Sparse& operator=(const Sparse&) = delete;

  T* data() const {
    if (data_ == nullptr) throw std::bad_alloc();
    return data_;
  }
  T& operator[](std::size_t index) const { return data()[index]; }

 private:
  std::size_t bytes_;
  T* data_ = nullptr;
};

constexpr std::size_t kRows = 3;
constexpr std::size_t kDim = 64;
/// The last of kRows rows begins beyond 2^32 elements.
constexpr std::size_t kStride = (std::size_t{1} << 31) + 16;
/// As does this row of kDim elements, and the same row of kDim / 4 words.
constexpr std::size_t kFarRow = (std::size_t{1} << 28) + 64;
constexpr RowSelection kFarRows{1, kFarRow / kSampleBlock};

class LargeIndexTest : public testing::Test {
 protected:
  void SetUp() override { simt::set_device_count(1); }

  cuda::Stream stream;
};

float value_at(std::size_t i, std::size_t l) {
  return static_cast<float>((7 * i + 3 * l) % 11) - 5.0F;
}

/// Rows [kFarRow, kFarRow + kRows) and two columns.
template <class T>
struct Factors {
  Factors() {
    for (std::size_t l = 0; l < kDim; ++l) {
      for (std::size_t i = 0; i < kRows; ++i) {
        rows[(kFarRow + i) * kDim + l] = static_cast<T>(value_at(i, l));
      }
      for (std::size_t c = 0; c < 2; ++c) {
        columns[c * kDim + l] = static_cast<T>(value_at(c + 4, l));
      }
    }
  }
  float product(std::size_t i, std::size_t c) const {
    float sum = 0;
    for (std::size_t l = 0; l < kDim; ++l) sum += value_at(i, l) * value_at(c + 4, l);
    return sum;
  }

  Sparse<T> rows{(kFarRow + kRows) * kDim};
  std::vector<T> columns = std::vector<T>(2 * kDim);
};

/// Costs of kRows rows that lie far apart.
struct FarCosts {
  const std::int32_t* data() const { return q.data(); }
  std::int32_t at(std::size_t i, std::size_t c) const {
    return q[i * kStride + static_cast<std::size_t>(site[c])];
  }
  cuda::CostColumns columns() const { return {site.data(), q.data(), kStride, 1.0F}; }

  Sparse<std::int32_t> q{kRows * kStride};
  std::vector<std::int32_t> site{1, 14};
};

constexpr float kNorm = 20000;  // keeps costs positive

TEST_F(LargeIndexTest, exact_costs) {
  const Factors<float> factors;
  const Sparse<float> norm(kFarRow + kRows);
  for (std::size_t i = 0; i < kRows; ++i) norm[kFarRow + i] = kNorm + static_cast<float>(i);
  const std::vector<float> column_norm{1, 2};
  const FarCosts own;
  const FarCosts finished;
  const Sparse<float> products(kRows * kStride);
  for (std::size_t i = 0; i < kRows; ++i) {
    for (std::size_t c = 0; c < 2; ++c) products[i * kStride + c] = factors.product(i, c);
  }
  const cuda::ProductShape shape{kRows, 2, kDim, 2, kFarRows};

  cuda::exact_costs(shape, {factors.rows.data(), factors.columns.data(), {}}, norm.data(),
                    column_norm.data(), own.columns(), stream.handle());
  cuda::exact_costs(shape, {nullptr, nullptr, {products.data(), kStride}}, norm.data(),
                    column_norm.data(), finished.columns(), stream.handle());
  stream.wait();

  for (std::size_t i = 0; i < kRows; ++i) {
    for (std::size_t c = 0; c < 2; ++c) {
      const float cost = norm[kFarRow + i] + column_norm[c] - 2 * factors.product(i, c);
      EXPECT_EQ(own.at(i, c), static_cast<std::int32_t>(cost));
      EXPECT_EQ(finished.at(i, c), static_cast<std::int32_t>(cost));
    }
  }
}

TEST_F(LargeIndexTest, int8_costs) {
  const Factors<std::int8_t> factors;
  const Sparse<float> norm(kFarRow + kRows);
  const Sparse<float> step(kFarRow + kRows);
  for (std::size_t i = 0; i < kRows; ++i) {
    norm[kFarRow + i] = kNorm;
    step[kFarRow + i] = static_cast<float>(i + 1);
  }
  const std::vector<float> column_norm{1, 2};
  const std::vector<float> column_step{1, 3};
  const FarCosts base;
  const FarCosts changed;
  const std::int8_t* const far_rows = factors.rows.data() + kFarRow * kDim;

  cuda::approximate_costs(
      {kRows, 2, kDim, 2, kFarRows},
      {factors.rows.data(), step.data(), factors.columns.data(), column_step.data(), {}},
      norm.data(), column_norm.data(), base.columns(), stream.handle());
  cuda::changed_costs(
      {kRows, 2, kDim, 2, {}},
      {far_rows, step.data() + kFarRow, factors.columns.data(), column_step.data(), {}},
      column_norm.data(), base.data(), changed.columns(), stream.handle());
  stream.wait();

  for (std::size_t i = 0; i < kRows; ++i) {
    for (std::size_t c = 0; c < 2; ++c) {
      const float product = 2 * step[kFarRow + i] * column_step[c] * factors.product(i, c);
      EXPECT_EQ(base.at(i, c), static_cast<std::int32_t>(kNorm + column_norm[c] - product));
      EXPECT_EQ(changed.at(i, c),
                base.at(i, c) + static_cast<std::int32_t>(column_norm[c] - product));
    }
  }
}

TEST_F(LargeIndexTest, total_cost) {
  const FarCosts costs;
  const std::vector<std::int32_t> label{3, 9, 12};
  for (std::size_t i = 0; i < kRows; ++i) {
    costs.q[i * kStride + static_cast<std::size_t>(label[i])] = 100 + static_cast<int>(i);
  }
  unsigned long long total = 0;

  cuda::total_cost({costs.data(), kRows, 16, kStride}, label.data(), &total, stream.handle());
  stream.wait();

  EXPECT_EQ(total, 303U);
}

TEST_F(LargeIndexTest, moves_between_more_sites_than_a_table_of_32_bits_has) {
  constexpr std::size_t kSites = (std::size_t{1} << 16) + 16;
  constexpr auto kFar = static_cast<std::int32_t>(kSites - 1);
  const Sparse<std::int32_t> q(2 * kSites);
  const std::vector<std::int32_t> label{kFar, kFar};
  q[static_cast<std::size_t>(kFar)] = 5;
  q[kSites + static_cast<std::size_t>(kFar)] = 7;
  q[kSites + 3] = 4;
  const Sparse<unsigned long long> least(kSites * kSites);
  unsigned long long* const far_moves = least.data() + (kSites - 1) * kSites;
  std::fill_n(far_moves, kSites, ~0ULL);

  cuda::smallest_moves({q.data(), 2, kSites, kSites}, label.data(), least.data(), stream.handle());
  stream.wait();

  const auto move = [](std::int64_t change, std::uint64_t row) {
    return static_cast<unsigned long long>(change + cuda::kMoveOffset) << 32 | row;
  };
  EXPECT_EQ(far_moves[0], move(-7, 1));
  EXPECT_EQ(far_moves[3], move(-5, 0));
  EXPECT_EQ(far_moves[kFar], move(0, 0));
}

TEST_F(LargeIndexTest, rows_that_are_gathered_and_added) {
  const Factors<float> factors;
  const auto row = static_cast<std::int32_t>(kFarRow);
  const std::vector<std::int32_t> listed{row, row + 2};
  const std::vector<float> factor{1, 2};
  const Sparse<double> member_factor(kFarRow + kRows);
  member_factor[kFarRow] = 1;
  member_factor[kFarRow + 2] = 2;
  const std::vector<std::int64_t> offset{0, 2};
  const std::vector<std::int32_t> entry{row + 2, ~row};
  const std::vector<cuda::SumSegment> segment{{row, 0, 2}};
  std::vector<std::uint32_t> gathered(2 * kDim);
  std::vector<float> scaled(2 * kDim);
  std::vector<double> label_sum(kDim);
  const Sparse<unsigned long long> sums((kFarRow + 1) * kDim);

  cuda::gather_rows(reinterpret_cast<const std::uint32_t*>(factors.rows.data()), listed.data(), 2,
                    kDim, gathered.data(), stream.handle());
  cuda::gather_scaled_rows(factors.rows.data(), listed.data(), factor.data(), 2, kDim,
                           scaled.data(), stream.handle());
  cuda::add_rows_by_label(factors.rows.data(), kDim, listed.data(), offset.data(),
                          member_factor.data(), 1, label_sum.data(), stream.handle());
  cuda::add_rows(factors.rows.data(), kDim, 1.0, entry.data(), segment.data(), 1, sums.data(),
                 stream.handle());
  stream.wait();

  for (std::size_t l = 0; l < kDim; ++l) {
    EXPECT_EQ(__builtin_bit_cast(float, gathered[kDim + l]), value_at(2, l));
    EXPECT_EQ(scaled[kDim + l], 2 * value_at(2, l));
    EXPECT_EQ(label_sum[l], value_at(0, l) + 2 * value_at(2, l));
    EXPECT_EQ(static_cast<long long>(sums[kFarRow * kDim + l]),
              static_cast<long long>(value_at(2, l) - value_at(0, l)));
  }
}

TEST_F(LargeIndexTest, distances_to_a_far_centroid) {
  const Factors<float> factors;
  const std::vector<std::int32_t> label(2, static_cast<std::int32_t>(kFarRow + 1));
  std::vector<double> distance(2);

  cuda::squared_distances(factors.columns.data(), 2, kDim, factors.rows.data(), label.data(),
                          distance.data(), stream.handle());
  stream.wait();

  for (std::size_t c = 0; c < 2; ++c) {
    double expected = 0;
    for (std::size_t l = 0; l < kDim; ++l) {
      const double difference = value_at(c + 4, l) - value_at(1, l);
      expected += difference * difference;
    }
    EXPECT_EQ(distance[c], expected);
  }
}

TEST_F(LargeIndexTest, widened_rows_that_lie_far_apart) {
  const std::vector<float> raw{1, 2, 3, 4, 5, 6};
  unsigned long long first_bad = ~0ULL;
  for (const bool transposed : {false, true}) {
    const Sparse<float> rows(kRows * kStride);

    cuda::widen_rows(raw.data(), {DType::f32, kRows, 2, transposed},
                     {rows.data(), kRows, 2, kStride, MemorySpace::device}, &first_bad,
                     stream.handle());
    stream.wait();

    EXPECT_EQ(rows[2 * kStride], transposed ? 3 : 5);
    EXPECT_EQ(rows[2 * kStride + 1], 6);
  }
}

}  // namespace
}  // namespace moefy
#endif
