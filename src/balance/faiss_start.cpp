#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "faiss_clustering.hpp"
#include "moefy/core/error.hpp"
#include "start_centroids.hpp"

namespace moefy {
namespace {

/// Rows that FAISS searches for at a time.
constexpr std::size_t kBlock = 64;
/// Whether FAISS decodes several rows at a time only to search for them. Newer versions may choose
/// their first centroids from such a block.
constexpr bool kBlocksAreOnlySearched = FAISS_VERSION_MAJOR == 1 && FAISS_VERSION_MINOR < 12;

/// How FAISS reaches the rows: it is given their numbers as codes, and decodes one at a time for
/// the centroids. So it needs no copy of a subsample, nor does it look for NaN, which `load` has
/// done.
class RowsByNumber final : public faiss::Index {
 public:
  explicit RowsByNumber(MatrixView<const float> rows)
      : faiss::Index(static_cast<FaissCount>(rows.cols), faiss::METRIC_L2), rows_(rows) {}

  std::size_t sa_code_size() const override { return sizeof(std::int32_t); }
  void sa_decode(FaissCount count, const std::uint8_t* codes, float* x) const override {
    const auto rows = static_cast<std::size_t>(count);
    if (kBlocksAreOnlySearched && rows > 1) {
      // ResidentIndex does not look at them; if anything else did it would not go unnoticed.
      std::fill_n(x, rows * rows_.cols, std::numeric_limits<float>::quiet_NaN());
      return;
    }
    for (std::size_t i = 0; i < rows; ++i) {
      std::int32_t number = 0;
      std::memcpy(&number, codes + i * sizeof number, sizeof number);
      std::ranges::copy(rows_.row(static_cast<std::size_t>(number)), x + i * rows_.cols);
    }
  }

  void add(FaissCount, const float*) override { refuse(); }
  void reset() override { refuse(); }
  void search(FaissCount, const float*, FaissCount, float*, FaissCount*,
              const faiss::SearchParameters*) const override {
    refuse();
  }

 private:
  [[noreturn]] static void refuse() { throw InternalError("FAISS only decodes row numbers"); }

  MatrixView<const float> rows_;
};

/// The search of FAISS' Clustering on rows that the backend already holds. FAISS asks for the
/// labels of all selected rows in order, block by block.
class ResidentIndex final : public faiss::Index {
 public:
  ResidentIndex(const KMeansContext& context, RowSelection selection)
      : faiss::Index(static_cast<FaissCount>(context.dim()), faiss::METRIC_L2),
        context_(context),
        selection_(selection) {}

  void add(FaissCount count, const float* centroids) override {
    centroids_.insert(centroids_.end(), centroids,
                      centroids + static_cast<std::size_t>(count) * context_.dim());
    ntotal += count;
  }
  void reset() override {
    centroids_.clear();
    ntotal = 0;
  }
  void search(FaissCount count, const float* /*x*/, FaissCount k, float* distances,
              FaissCount* labels, const faiss::SearchParameters* /*parameters*/) const override {
    const auto asked = static_cast<std::size_t>(count);
    if (answered_ == 0) find_nearest();
    require(k == 1 && answered_ + asked <= choice_.label.size(),
            "FAISS searches the rows it was given");
    const float quantum = std::ldexp(1.0F, -context_.cost_scale_log2);
    for (std::size_t i = 0; i < asked; ++i) {
      labels[i] = choice_.label[answered_ + i];
      distances[i] = quantum * static_cast<float>(choice_.best[answered_ + i]);
    }
    answered_ = (answered_ + asked) % choice_.label.size();
  }

 private:
  void find_nearest() const {
    context_.check_stop();
    const auto num_centroids = static_cast<std::size_t>(ntotal);
    const MatrixView<const float> centroids(centroids_.data(), num_centroids, context_.dim());
    const CostView q =
        context_.backend.cost_buffer(0, selection_.count(context_.num_rows()), num_centroids);
    if (context_.quantized) {
      context_.backend.approximate_costs(context_.points, selection_, centroids,
                                         context_.cost_scale_log2, q);
    } else {
      // Without int8 rows the problem is small and every row is selected.
      context_.backend.costs(context_.points, centroids, context_.cost_scale_log2,
                             all_sites(num_centroids), q);
    }
    std::vector<std::int32_t> prices(q.stride, kNoSite);
    std::fill_n(prices.begin(), num_centroids, 0);
    context_.backend.best_sites(q, prices, true, choice_);
  }

  const KMeansContext& context_;
  RowSelection selection_;
  std::vector<float> centroids_;
  mutable SiteChoice choice_;
  mutable std::size_t answered_ = 0;  ///< selected rows of this iteration
};

}  // namespace

void start_from_faiss(const KMeansContext& context, RowSelection selection, int iterations,
                      RandomStream& random, Matrix<float>& centroids) {
  const auto train = [&](faiss::Clustering& clustering) {
    std::vector<std::int32_t> numbers(selection.count(context.num_rows()));
    const bool here = context.points.rows.space == MemorySpace::host;
    for (std::size_t i = 0; i < numbers.size(); ++i)
      numbers[i] = static_cast<std::int32_t>(here ? selection.global(i) : i);
    const RowsByNumber rows(here ? context.points.rows.on_host()
                                 : training_rows(context, selection));
    ResidentIndex index(context, selection);
    clustering.decode_block_size = kBlock;
    clustering.train_encoded(static_cast<FaissCount>(numbers.size()),
                             reinterpret_cast<const std::uint8_t*>(numbers.data()), &rows, index);
    require(std::ranges::all_of(clustering.centroids, [](float x) { return std::isfinite(x); }),
            "FAISS decodes one row at a time for its centroids");
  };
  cluster_with_faiss(context, selection, iterations, random, train, centroids);
}

}  // namespace moefy
