#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstddef>
#include <tuple>

#include "cuda/runtime.hpp"

namespace moefy::cuda {

/// A limit of the current device.
inline unsigned device_attribute(cudaDeviceAttr attribute) {
  int device = 0;
  int value = 0;
  check(cudaGetDevice(&device), "asking for the device");
  check(cudaDeviceGetAttribute(&value, attribute, device), "asking for its multiprocessors");
  return static_cast<unsigned>(value);
}

/// Blocks for `count` items, `per_block` at a time; no more than the current device runs at once:
/// kernels stride over the rest.
inline dim3 strided_grid(std::size_t count, std::size_t per_block, unsigned block) {
  const unsigned per_processor =
      std::max(device_attribute(cudaDevAttrMaxThreadsPerMultiProcessor) / block, 1U);
  const std::size_t most =
      std::size_t{device_attribute(cudaDevAttrMultiProcessorCount)} * per_processor;
  return dim3(static_cast<unsigned>(std::min((count + per_block - 1) / per_block, most)));
}

/// Queues `kernel` on `stream`: the only place where kernels start, but for launch_resident. Throws
/// DeviceError.
template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, unsigned block, std::size_t shared_bytes,
            cudaStream_t stream, Arguments... arguments) {
  if (grid.x == 0 || grid.y == 0) return;
#ifdef __CUDACC__
  kernel<<<grid, block, shared_bytes, stream>>>(static_cast<Parameters>(arguments)...);
#else
  simt::launch_kernel(kernel, grid, block, shared_bytes, stream, simt::Blocks::apart,
                      static_cast<Parameters>(arguments)...);
#endif
  check(cudaGetLastError(), "starting a kernel");
}

/// Queues a kernel whose blocks all run at once and may wait for each other
/// (cooperative_groups::this_grid): at most `blocks`, and one a multiprocessor, because a barrier
/// gets slower with every block. Such a grid begins only where there is room for all of it at once,
/// and a kernel of NCCL stays on its multiprocessors until its bytes have come: hence only seven
/// eighths of them, and kernels of which two blocks would fit on one. Throws DeviceError.
template <class... Parameters, class... Arguments>
void launch_resident(void (*kernel)(Parameters...), std::size_t blocks, unsigned block,
                     std::size_t shared_bytes, cudaStream_t stream, Arguments... arguments) {
  const std::size_t processors = device_attribute(cudaDevAttrMultiProcessorCount);
  const std::size_t most = processors - processors / 8;
  const dim3 grid(static_cast<unsigned>(std::clamp<std::size_t>(blocks, 1, most)));
#ifdef __CUDACC__
  std::tuple<Parameters...> values(static_cast<Parameters>(arguments)...);
  std::apply(
      [&](auto&... value) {
        void* pointers[] = {&value...};
        check(cudaLaunchCooperativeKernel(reinterpret_cast<const void*>(kernel), grid, dim3(block),
                                          pointers, shared_bytes, stream),
              "starting a kernel");
      },
      values);
#else
  simt::launch_kernel(kernel, grid, block, shared_bytes, stream, simt::Blocks::together,
                      static_cast<Parameters>(arguments)...);
#endif
  check(cudaGetLastError(), "starting a kernel");
}

}  // namespace moefy::cuda
