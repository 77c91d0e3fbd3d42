// The kernel that others are compared with: it must read every element once.
#include "cuda/timing_kernels.hpp"

#include <gtest/gtest.h>

#include "cuda/runtime.hpp"
#include "kernels/backends.hpp"
#include "simt.hpp"

namespace moefy {
namespace {

TEST(TimingKernelsTest, sums_of_rows_are_those_of_the_host) {
  simt::set_device_count(1);
  cuda::Stream stream;
  cuda::DeviceBuffer<float> rows;
  cuda::DeviceBuffer<float> sums;
  for (const std::size_t n : test::kSizes) {
    for (const std::size_t dim : {4, 132}) {
      SCOPED_TRACE(testing::Message() << n << " x " << dim);
      const Matrix<float> values = test::normal_matrix(n, dim, n + dim);
      stream.upload(values.values(), rows.resize(n * dim));

      cuda::sum_rows(rows.data(), n, dim, sums.resize(n), stream.handle());
      const auto found = stream.download<float>(sums.data(), n);
      stream.wait();

      for (std::size_t i = 0; i < n; ++i) {
        double expected = 0;
        for (const float value : values.row(i)) expected += value;
        ASSERT_NEAR(found[i], expected, 1e-4) << "row " << i;
      }
    }
  }
}

}  // namespace
}  // namespace moefy
