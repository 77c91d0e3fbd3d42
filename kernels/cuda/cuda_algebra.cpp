#include "cuda/cuda_algebra.hpp"

#include <algorithm>

#include "cuda/cuda_matrix.hpp"
#include "cuda/row_kernels.hpp"
#include "cuda/token_kernels.hpp"
#include "moefy/core/error.hpp"

namespace moefy {
namespace {

using cuda::own;

/// Lists in device memory, one after the other.
class ListsOnDevice {
 public:
  void assign(const ExpertLists::Lists& lists, cuda::Stream& stream) {
    std::vector<std::int32_t> entry;
    std::vector<std::int64_t> begin(1, 0);
    for (const std::vector<std::int32_t>& list : lists) {
      entry.insert(entry.end(), list.begin(), list.end());
      begin.push_back(static_cast<std::int64_t>(entry.size()));
    }
    stream.upload(std::span<const std::int32_t>(entry), entry_.resize(entry.size()));
    stream.upload(std::span<const std::int64_t>(begin), begin_.resize(begin.size()));
  }
  cuda::DeviceLists view() const { return {entry_.data(), begin_.data(), begin_.size() - 1}; }

 private:
  cuda::DeviceBuffer<std::int32_t> entry_;
  cuda::DeviceBuffer<std::int64_t> begin_;
};

/// The experts of each neuron, -1 for a shared one.
ExpertLists::Lists experts_of_neurons(const ExpertLists& lists) {
  ExpertLists::Lists experts_of;
  const auto add = [&](std::span<const std::int32_t> list, std::int32_t expert) {
    for (const std::int32_t neuron : list) {
      const auto i = static_cast<std::size_t>(neuron);
      if (i >= experts_of.size()) experts_of.resize(i + 1);
      experts_of[i].push_back(expert);
    }
  };
  add(lists.shared(), -1);
  for (std::size_t e = 0; e < lists.experts().size(); ++e)
    add(lists.experts()[e], static_cast<std::int32_t>(e));
  return experts_of;
}

class CudaExpertLists final : public ExpertLists {
 public:
  CudaExpertLists(Lists experts, std::vector<std::int32_t> shared, cuda::Stream& stream)
      : ExpertLists(std::move(experts), std::move(shared)) {
    neurons_.assign(this->experts(), stream);
    experts_of_.assign(experts_of_neurons(*this), stream);
  }
  cuda::DeviceLists neurons() const { return neurons_.view(); }
  cuda::DeviceLists experts_of() const { return experts_of_.view(); }

 private:
  ListsOnDevice neurons_, experts_of_;
};

const CudaExpertLists& own(const ExpertLists& lists) {
  return static_cast<const CudaExpertLists&>(lists);
}

class CudaExpertNorms final : public ExpertNorms {
 public:
  CudaExpertNorms(const cuda::CudaMatrix& down, const CudaExpertLists& lists,
                  const cuda::SumPlace& place)
      : lists_(lists), place_(place) {
    std::size_t elements = 0;
    std::size_t longest = 0;
    for (const std::vector<std::int32_t>& expert : lists.experts()) {
      elements += expert.size() * expert.size();
      longest = std::max(longest, expert.size());
    }
    gram_.resize(elements);
    float* const rows = part_.resize(longest * down.cols());
    for_experts([&](std::size_t e, const std::int32_t* neurons, float* gram) {
      const std::size_t size = lists_.experts()[e].size();
      cuda::gather_rows(reinterpret_cast<const std::uint32_t*>(down.data()), neurons, size,
                        down.cols(), reinterpret_cast<std::uint32_t*>(rows),
                        place_.stream.handle());
      place_.products.multiply({rows, down.cols()}, {rows, down.cols()}, size, size, down.cols(),
                               gram);
    });
  }

  void compute(const BackendMatrix& hidden, BackendMatrix& out_in) override {
    cuda::check(cudaSetDevice(place_.device), "choosing the device");
    const std::size_t tokens = hidden.rows();
    const std::size_t experts = lists_.experts().size();
    float* const out = own(out_in).room(tokens, experts);
    for_experts([&](std::size_t e, const std::int32_t* neurons, float* gram) {
      const std::size_t size = lists_.experts()[e].size();
      float* const part = part_.resize(tokens * size);
      cuda::gather_columns(own(hidden).data(), tokens, hidden.cols(), neurons, size, ValueMap::same,
                           part, place_.stream.handle());
      float* const product = product_.resize(tokens * size);
      place_.products.multiply({part, size}, {gram, size}, tokens, size, size, product);
      cuda::norms_of_products(part, product, tokens, size, out + e, experts,
                              place_.stream.handle());
    });
  }

 private:
  /// body(expert, its neurons, its Gram matrix), the latter two in device memory.
  template <class Body>
  void for_experts(const Body& body) {
    const std::int32_t* neurons = lists_.neurons().entry;
    float* gram = gram_.data();
    for (std::size_t e = 0; e < lists_.experts().size(); ++e) {
      const std::size_t size = lists_.experts()[e].size();
      body(e, neurons, gram);
      neurons += size;
      gram += size * size;
    }
  }

  const CudaExpertLists& lists_;
  cuda::SumPlace place_;
  cuda::DeviceBuffer<float> gram_;  ///< of each expert: K = down_e · down_eᵀ
  cuda::DeviceBuffer<float> part_;  ///< an expert's rows of down, or columns of hidden
  cuda::DeviceBuffer<float> product_;
};

}  // namespace

void CudaAlgebra::enter() const { cuda::check(cudaSetDevice(device_), "choosing the device"); }

const std::int32_t* CudaAlgebra::upload(std::span<const std::int32_t> values) {
  stream_.upload(values, ids_.resize(values.size()));
  return ids_.data();
}

const float* CudaAlgebra::upload(std::span<const float> values) {
  stream_.upload(values, weights_.resize(values.size()));
  return weights_.data();
}

std::unique_ptr<BackendMatrix> CudaAlgebra::make_matrix() {
  return std::make_unique<cuda::CudaMatrix>(device_, stream_);
}

std::unique_ptr<ProductSum> CudaAlgebra::make_product_sum(std::size_t n, std::size_t m) {
  return cuda::make_product_sum(n, m, place());
}

std::unique_ptr<GramSum> CudaAlgebra::make_gram_sum(std::size_t n) {
  return cuda::make_gram_sum(n, place());
}

std::unique_ptr<ExpertLists> CudaAlgebra::make_lists(ExpertLists::Lists experts,
                                                     std::vector<std::int32_t> shared) {
  enter();
  return std::make_unique<CudaExpertLists>(std::move(experts), std::move(shared), stream_);
}

std::unique_ptr<ExpertNorms> CudaAlgebra::make_expert_norms(const BackendMatrix& down,
                                                            const ExpertLists& lists) {
  enter();
  return std::make_unique<CudaExpertNorms>(own(down), own(lists), place());
}

void CudaAlgebra::multiply_transposed(const BackendMatrix& a, const BackendMatrix& b,
                                      BackendMatrix& out) {
  require(a.cols() == b.cols(), "shapes of a · bᵀ");
  enter();
  products_.multiply({own(a).data(), a.cols()}, {own(b).data(), b.cols()}, a.rows(), b.rows(),
                     a.cols(), own(out).room(a.rows(), b.rows()));
}

void CudaAlgebra::multiply(const BackendMatrix& a, const BackendMatrix& b, BackendMatrix& out) {
  require(a.cols() == b.rows(), "shapes of a · b");
  enter();
  products_.multiply({own(a).data(), a.cols()}, {own(b).data(), b.cols(), true}, a.rows(), b.cols(),
                     a.cols(), own(out).room(a.rows(), b.cols()));
}

void CudaAlgebra::ffn_hidden(const FfnFactors& factors, const BackendMatrix& inputs,
                             BackendMatrix& hidden) {
  const auto values_of = [](const BackendMatrix* bias) {
    return bias != nullptr ? own(*bias).data() : nullptr;
  };
  const bool gated = factors.gate != nullptr;
  multiply_transposed(inputs, gated ? *factors.gate : *factors.up, hidden);
  const std::size_t tokens = hidden.rows();
  const std::size_t n = hidden.cols();
  cuda::HiddenParts parts;
  parts.hidden = own(hidden).room(tokens, n);
  parts.first_bias = values_of(gated ? factors.gate_bias : factors.up_bias);
  if (gated) {
    products_.multiply({own(inputs).data(), inputs.cols()},
                       {own(*factors.up).data(), inputs.cols()}, tokens, n, inputs.cols(),
                       up_.resize(tokens * n));
    parts.up = up_.data();
    parts.up_bias = values_of(factors.up_bias);
  }
  cuda::finish_hidden(parts, factors.activation, tokens, n, stream_.handle());
}

std::vector<double> CudaAlgebra::squared_row_norms(const BackendMatrix& rows) {
  enter();
  cuda::RowFigures figures;
  figures.squared_norm = sums_.resize(rows.rows());
  cuda::measure_rows(own(rows).data(), rows.rows(), rows.cols(), figures, stream_.handle());
  std::vector<double> norms(rows.rows());
  cuda::download_to<double>(stream_, sums_.data(), norms);
  return norms;
}

void CudaAlgebra::add_squares_of_columns(const BackendMatrix& rows, std::span<double> sums) {
  require(sums.size() == rows.cols(), "a sum for every column");
  enter();
  stream_.upload(std::span<const double>(sums), sums_.resize(sums.size()));
  cuda::add_squares_of_columns(own(rows).data(), rows.rows(), rows.cols(), sums_.data(),
                               stream_.handle());
  cuda::download_to<double>(stream_, sums_.data(), sums);
}

void CudaAlgebra::gather_columns(const BackendMatrix& from, std::span<const std::int32_t> columns,
                                 ValueMap map, BackendMatrix& out) {
  enter();
  cuda::gather_columns(own(from).data(), from.rows(), from.cols(), upload(columns), columns.size(),
                       map, own(out).room(from.rows(), columns.size()), stream_.handle());
}

void CudaAlgebra::expert_scores(const BackendMatrix& hidden, const ExpertLists& lists,
                                ExpertScore score, BackendMatrix& out) {
  enter();
  cuda::expert_scores(own(hidden).data(), hidden.rows(), hidden.cols(), own(lists).neurons(), score,
                      own(out).room(hidden.rows(), lists.experts().size()), stream_.handle());
}

void CudaAlgebra::mark_largest(const BackendMatrix& values, std::size_t count, bool magnitudes,
                               BackendMatrix& marks_in) {
  require(count <= values.cols(), "at most as many marks as there are values");
  enter();
  float* const marks = own(marks_in).room(values.rows(), values.cols());
  if (count == 0) return stream_.fill(marks, 0, values.size());
  cuda::mark_largest(own(values).data(), values.rows(), values.cols(), count, magnitudes, marks,
                     stream_.handle());
}

void CudaAlgebra::part_hidden(const BackendMatrix& hidden, const BackendMatrix& chosen,
                              std::span<const std::int32_t> label, std::span<const float> factor,
                              BackendMatrix& kept, BackendMatrix* missing) {
  require(chosen.rows() == hidden.rows() && label.size() == hidden.cols() &&
              (factor.empty() || factor.size() == hidden.rows()),
          "a choice for every token, a label for every neuron");
  enter();
  const cuda::HiddenChoice choice{own(chosen).data(), chosen.cols(), upload(label),
                                  factor.empty() ? nullptr : upload(factor)};
  float* const room = own(kept).room(hidden.rows(), hidden.cols());
  cuda::part_hidden(own(hidden).data(), hidden.rows(), hidden.cols(), choice, room,
                    missing ? own(*missing).room(hidden.rows(), hidden.cols()) : nullptr,
                    stream_.handle());
}

void CudaAlgebra::leave_out(const BackendMatrix& hidden, const ExpertLists& lists,
                            const BackendMatrix& chosen, BackendMatrix& out) {
  require(chosen.rows() == hidden.rows() && chosen.cols() == lists.experts().size(),
          "a choice for every token");
  enter();
  cuda::leave_out(own(hidden).data(), hidden.rows(), hidden.cols(), own(lists).experts_of(),
                  own(chosen).data(), chosen.cols(), own(out).room(hidden.rows(), hidden.cols()),
                  stream_.handle());
}

void CudaAlgebra::weighted_squares(const BackendMatrix& hidden, std::span<const float> weight,
                                   BackendMatrix& out) {
  require(weight.size() == hidden.rows(), "a weight for every token");
  enter();
  cuda::weighted_squares(own(hidden).data(), hidden.rows(), hidden.cols(), upload(weight),
                         own(out).room(hidden.rows(), hidden.cols()), stream_.handle());
}

}  // namespace moefy
