// Every operation on recorded tokens once, small enough for one thread a CUDA thread, and what they
// say when the device fails them. tests/kernels compares the backends at all sizes.
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "device_errors.hpp"
#include "kernels/backends.hpp"
#include "sanitizers.hpp"
#include "simt.hpp"

namespace moefy {
namespace {

using test::device_error_of;

constexpr std::size_t kTokens = 20;
constexpr std::size_t kNeurons = 40;
constexpr std::size_t kWidth = 9;

/// The values of all results, one after the other.
class Results {
 public:
  void add(const BackendMatrix& matrix) { add(matrix.on_host().values()); }
  template <class Values>
  void add(const Values& values) {
    all_.insert(all_.end(), values.begin(), values.end());
  }
  const std::vector<double>& all() const { return all_; }

 private:
  std::vector<double> all_;
};

/// An FFN layer's hidden activations, choices and norms, and a refit of its output to them.
std::vector<double> compute(Backend& backend) {
  LinearAlgebra& algebra = backend.algebra();
  const Matrix<float> values[] = {
      test::normal_matrix(kTokens, kWidth, 1), test::normal_matrix(kNeurons, kWidth, 2),
      test::normal_matrix(kNeurons, kWidth, 3), test::normal_matrix(kNeurons, kWidth, 4),
      test::normal_matrix(1, kNeurons, 5)};
  std::unique_ptr<BackendMatrix> in[5];
  for (std::size_t i = 0; i < 5; ++i) {
    in[i] = algebra.make_matrix();
    in[i]->assign(values[i].view());
  }
  const BackendMatrix &inputs = *in[0], &down = *in[3];
  const auto make = [&] { return algebra.make_matrix(); };
  const auto hidden = make(), output = make(), scores = make(), chosen = make(), kept = make(),
             missing = make(), left_out = make(), squares = make(), part = make(), norms = make();
  Results results;

  algebra.ffn_hidden({in[1].get(), in[2].get(), in[4].get(), in[4].get(), Activation::silu}, inputs,
                     *hidden);
  algebra.multiply(*hidden, down, *output);
  const auto lists = algebra.make_lists({{0, 1, 2, 39}, {}, {3, 4, 2}}, {7});
  algebra.expert_scores(*hidden, *lists, ExpertScore::l1, *scores);
  algebra.make_expert_norms(down, *lists)->compute(*hidden, *norms);
  algebra.mark_largest(*scores, 2, false, *chosen);
  std::vector<std::int32_t> label(kNeurons, -1);
  for (std::size_t i = 0; i < kNeurons; i += 2) label[i] = static_cast<std::int32_t>(i % 3);
  const std::vector<float> weight(kTokens, 0.5F);
  algebra.part_hidden(*hidden, *chosen, label, weight, *kept, missing.get());
  algebra.leave_out(*hidden, *lists, *chosen, *left_out);
  algebra.weighted_squares(*hidden, weight, *squares);
  algebra.gather_columns(*hidden, std::vector<std::int32_t>{5, 39, 0, 5}, ValueMap::magnitude,
                         *part);
  part->edit([](MatrixView<float> magnitudes) { magnitudes.row(0)[0] = 2; });
  for (const BackendMatrix* matrix :
       {hidden.get(), output.get(), scores.get(), norms.get(), kept.get(), missing.get(),
        left_out.get(), squares.get(), part.get()})
    results.add(*matrix);
  results.add(algebra.squared_row_norms(*output));
  std::vector<double> sums(kNeurons, 0.0);
  algebra.add_squares_of_columns(*hidden, sums);
  results.add(sums);

  const auto open = algebra.make_gram_sum(kNeurons), gram = algebra.make_gram_sum(kNeurons);
  open->add(*squares);  // all positive, so that what is clamped stays positive definite
  gram->add_clamped(*open, 8);
  gram->add(*kept);
  gram->subtract_outer(1e-8, sums);
  const auto change = algebra.make_product_sum(kNeurons, kWidth);
  change->add(*kept, *output);
  change->subtract_outer(1e-3, sums, std::vector<double>(kWidth, 1.0));
  results.add(change->read().values());
  results.add(gram->diagonal());
  gram->factor(10)->solve(*change);
  results.add(change->take().values());
  return results.all();
}

class CudaAlgebraTest : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    simt::set_device_count(1);
    setenv("MOEFY_CUBLAS", GetParam(), 1);
  }
  void TearDown() override {
    simt::fail("");
    limit_cuda_memory(0);
    unsetenv("MOEFY_CUBLAS");
  }
};

TEST_P(CudaAlgebraTest, every_operation_agrees_with_the_reference) {
  const std::vector<double> expected = compute(*make_reference_backend(1));

  const std::vector<double> found = compute(*make_cuda_backend(0, 1));

  ASSERT_EQ(found.size(), expected.size());
  for (std::size_t i = 0; i < found.size(); ++i)
    ASSERT_NEAR(found[i], expected[i], 1e-4 * std::max(1.0, std::abs(expected[i]))) << i;
}

TEST_P(CudaAlgebraTest, holds_no_more_memory_than_it_may_and_gives_it_back) {
  const std::size_t before = simt::device_memory_in_use();
  limit_cuda_memory(3000);

  const std::string message = device_error_of([] { compute(*make_cuda_backend(0, 1)); });

  EXPECT_NE(message.find("MiB more are needed"), std::string::npos) << message;
  EXPECT_NE(message.find("(--device-memory)"), std::string::npos) << message;
  EXPECT_EQ(simt::device_memory_in_use(), before);
}

TEST_P(CudaAlgebraTest, blocks_of_one_size_take_no_more_memory) {
  const auto backend = make_cuda_backend(0, 1);
  LinearAlgebra& algebra = backend->algebra();
  const auto rows = algebra.make_matrix(), product = algebra.make_matrix();
  const auto gram = algebra.make_gram_sum(kNeurons);
  const auto step = [&](std::uint64_t block) {
    const Matrix<float> values = test::normal_matrix(kTokens, kNeurons, block);
    rows->assign(values.view());
    algebra.multiply_transposed(*rows, *rows, *product);
    gram->add(*rows);
    product->on_host();
  };
  step(0);
  const std::size_t allocations = simt::num_allocations();

  for (std::uint64_t block = 1; block < 4; ++block) step(block);

  EXPECT_EQ(simt::num_allocations(), allocations);
}

// A thread for every CUDA thread makes so many runs too slow.
#if !SIMT_THREAD_SANITIZER
TEST_P(CudaAlgebraTest, reports_every_failing_call_wherever_it_happens) {
  for (const char* call : {"cudaMalloc", "cudaMallocHost", "launch", "cudaStreamSynchronize",
                           "cudaMemcpyAsync", "cudaMemsetAsync", "cublasCreate", "cublasGemmEx"}) {
    const bool used = std::string(call).starts_with("cuda") || std::string(call) == "launch" ||
                      std::string(GetParam()) != "off";
    EXPECT_EQ(test::reported_failures(call, compute) > 0, used) << call;
  }
}
#endif

INSTANTIATE_TEST_SUITE_P(Products, CudaAlgebraTest, testing::Values("off", MOEFY_SIMULATED_CUBLAS),
                         [](const auto& parameter) {
                           return std::string(parameter.index == 0 ? "own" : "cublas");
                         });

}  // namespace
}  // namespace moefy
