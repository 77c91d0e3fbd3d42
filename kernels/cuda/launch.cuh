#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstddef>

#include "cuda/runtime.hpp"

namespace moefy::cuda {

/// Blocks for `count` items, `per_block` at a time; no more than the current device runs at once:
/// kernels stride over the rest.
inline dim3 strided_grid(std::size_t count, std::size_t per_block, unsigned block) {
  int device = 0;
  int processors = 0;
  int threads = 0;
  check(cudaGetDevice(&device), "asking for the device");
  check(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device),
        "asking for its multiprocessors");
  check(cudaDeviceGetAttribute(&threads, cudaDevAttrMaxThreadsPerMultiProcessor, device),
        "asking for its threads");
  const std::size_t most =
      static_cast<std::size_t>(processors) * std::max(static_cast<unsigned>(threads) / block, 1U);
  return dim3(static_cast<unsigned>(std::min((count + per_block - 1) / per_block, most)));
}

/// Queues `kernel` on `stream`: the only place where kernels start. Throws DeviceError.
template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, unsigned block, std::size_t shared_bytes,
            cudaStream_t stream, Arguments... arguments) {
  if (grid.x == 0 || grid.y == 0) return;
#ifdef __CUDACC__
  kernel<<<grid, block, shared_bytes, stream>>>(static_cast<Parameters>(arguments)...);
#else
  simt::launch_kernel(kernel, grid, block, shared_bytes, stream,
                      static_cast<Parameters>(arguments)...);
#endif
  check(cudaGetLastError(), "starting a kernel");
}

}  // namespace moefy::cuda
