#include "faiss_gpu.hpp"

#include "moefy/balance/start_method.hpp"
#include "moefy/core/error.hpp"

#if MOEFY_FAISS_GPU

#include <string>

#include <cuda_runtime_api.h>
#include <faiss/gpu/GpuIndexFlat.h>
#include <faiss/gpu/StandardGpuResources.h>
#include <faiss/impl/FaissException.h>
#include <fmt/format.h>

#include "faiss_clustering.hpp"

namespace moefy {
namespace {

/// The piece of rows that FAISS copies at a time, what it computes of them, and cuBLAS' work space.
constexpr std::size_t kTemporaryBytes = std::size_t{384} << 20;

std::uint64_t mebibytes(std::uint64_t bytes) { return bytes >> 20; }

// Newer versions may hand the search to another library; this start is FAISS' own.
template <class Config>
void search_by_faiss_itself(Config& config) {
  if constexpr (requires { config.use_raft; }) config.use_raft = false;
  if constexpr (requires { config.use_cuvs; }) config.use_cuvs = false;
}

faiss::gpu::GpuIndexFlatConfig config_for(int device) {
  faiss::gpu::GpuIndexFlatConfig config;
  config.device = device;  // else FAISS takes the first one, whoever uses it
  config.useFloat16 = false;
  search_by_faiss_itself(config);
  return config;
}

/// Leaves between two iterations once a stop is requested.
class GpuIndex final : public faiss::gpu::GpuIndexFlatL2 {
 public:
  GpuIndex(const KMeansContext& context, faiss::gpu::StandardGpuResources& resources, int device)
      : GpuIndexFlatL2(&resources, static_cast<int>(context.dim()), config_for(device)),
        context_(context) {}

  void search(FaissCount count, const float* x, FaissCount k, float* distances, FaissCount* labels,
              const faiss::SearchParameters* parameters) const override {
    context_.check_stop();
    GpuIndexFlatL2::search(count, x, k, distances, labels, parameters);
  }

 private:
  const KMeansContext& context_;
};

}  // namespace

struct FaissGpu::Resources {
  explicit Resources(int device_in) : device(device_in) {
    faiss.setTempMemory(kTemporaryBytes);
    faiss.setPinnedMemory(0);  // rows come from pageable memory
  }

  int device;
  faiss::gpu::StandardGpuResources faiss;
};

FaissGpu::FaissGpu() = default;

FaissGpu::~FaissGpu() {
  if (resources_ == nullptr) return;
  // On a device that has failed FAISS' own clean-up would end the process before its message.
  const bool usable =
      cudaSetDevice(resources_->device) == cudaSuccess && cudaDeviceSynchronize() == cudaSuccess;
  if (!usable) static_cast<void>(resources_.release());
}

void FaissGpu::start(const KMeansContext& context, RowSelection selection, int iterations,
                     RandomStream& random, Matrix<float>& centroids) {
  const std::optional<int> device = context.backend.device();
  if (!device) throw UsageError("--init faiss-gpu needs --backend cuda");
  try {
    if (resources_ == nullptr) {
      // Without it FAISS would end the process.
      const std::uint64_t free = free_cuda_memory(*device);
      if (free < kFaissGpuBytes) {
        throw DeviceError(fmt::format(
            "device {}: --init faiss-gpu needs {} MiB, {} MiB are free; use --init faiss", *device,
            mebibytes(kFaissGpuBytes), mebibytes(free)));
      }
      resources_ = std::make_unique<Resources>(*device);
    }
    cluster_with_faiss(
        context, selection, iterations, random,
        [&](faiss::Clustering& clustering) {
          const MatrixView<const float> rows = training_rows(context, selection);
          GpuIndex index(context, resources_->faiss, *device);
          clustering.train(static_cast<FaissCount>(rows.rows), rows.data, index);
        },
        centroids);
  } catch (const faiss::FaissException& error) {
    throw DeviceError(fmt::format("device {}: --init faiss-gpu: {}", *device, error.what()));
  }
}

std::string faiss_gpu_obstacle() { return {}; }

}  // namespace moefy

#else

namespace moefy {

struct FaissGpu::Resources {};

FaissGpu::FaissGpu() = default;
FaissGpu::~FaissGpu() = default;

void FaissGpu::start(const KMeansContext& /*context*/, RowSelection /*selection*/,
                     int /*iterations*/, RandomStream& /*random*/, Matrix<float>& /*centroids*/) {
  throw UsageError(faiss_gpu_obstacle());
}

std::string faiss_gpu_obstacle() {
  return "--init faiss-gpu: built without FAISS on the GPU; configure with -DMOEFY_FAISS_GPU=ON";
}

}  // namespace moefy

#endif
