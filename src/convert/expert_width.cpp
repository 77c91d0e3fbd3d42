#include "moefy/convert/expert_width.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "hosts/host.hpp"
#include "moefy/core/error.hpp"
#include "plan.hpp"

namespace moefy {

namespace {

constexpr std::int64_t kRowBytes = 16;

bool has_stock_experts(const ConversionPlan& plan) {
  return plan.is_moe() && std::ranges::any_of(all_hosts(), [&](const std::unique_ptr<Host>& host) {
           return host->name() == plan.host && host->is_stock();
         });
}

/// Of the down projections: the narrowest if layers differ.
DType narrowest_dtype(const ConversionPlan& plan) {
  DType narrowest = DType::f32;
  for (std::size_t layer = 0; layer < plan.results.size(); ++layer) {
    if (!plan.results[layer]) continue;
    const DType dtype = plan.source.layers[layer].find(FfnRole::down)->dtype;
    if (size_of(dtype) < size_of(narrowest)) narrowest = dtype;
  }
  return narrowest;
}

/// Neurons of the largest routed expert, without padding.
std::int64_t largest_expert(const ConversionPlan& plan) {
  std::size_t largest = 0;
  for (const LayerResult* result : plan.results)
    for (std::size_t e = 0; result && e < result->lists().num_experts(); ++e)
      largest = std::max(largest, result->lists().expert_members(e).size());
  return static_cast<std::int64_t>(largest);
}

}  // namespace

void require_runnable_width(const ConversionPlan& plan) {
  if (!has_stock_experts(plan)) return;
  const DType dtype = narrowest_dtype(plan);
  const auto element = static_cast<std::int64_t>(size_of(dtype));
  const auto is_runnable = [&](std::int64_t width) { return width * element % kRowBytes == 0; };
  const std::int64_t width = plan.shape.expert_width;
  if (is_runnable(width)) return;
  const std::int64_t neurons = largest_expert(plan);
  std::int64_t align = 1;
  while (!is_runnable((neurons + align - 1) / align * align)) ++align;
  throw UsageError(fmt::format(
      "--align {}: experts would be {} neurons wide, {} bytes of {}, and stock transformers "
      "multiplies experts only in rows of a multiple of {} bytes (host {}); the smallest --align "
      "that works is {}",
      plan.config.align, width, width * element, name_of(dtype), kRowBytes, plan.host, align));
}

}  // namespace moefy
