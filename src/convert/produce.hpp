#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <stop_token>

#include "moefy/checkpoint/checkpoint.hpp"
#include "moefy/core/thread_pool.hpp"
#include "plan.hpp"

namespace moefy {

/// Buffers hold about this much; a stop request is noticed from block to block.
inline constexpr std::size_t kBlockBytes = std::size_t{4} << 20;

/// Takes the bytes of output tensors, in pieces, in any order, each byte once.
class ByteSink {
 public:
  virtual ~ByteSink() = default;
  /// `tensor`: index into ConversionPlan::tensors.
  virtual void put(std::size_t tensor, std::uint64_t offset, std::span<const std::byte> bytes) = 0;
};

/// Throws Interrupted if asked to stop.
void stop_point(const std::stop_token& stop);

/// Which tensors are made, and from what.
enum class Refitted {
  from_refit,  ///< all, refitted ones from the refit file
  left_out,
  as_dense,  ///< only the refitted ones, from the dense checkpoint
};

/// Makes all bytes of the tensors of one shard from the dense checkpoint. This one place says what
/// the output contains: writing and byte-by-byte comparison differ only in the sink. Several
/// threads work on different tensors; the sink is called by all of them, for any one tensor by one
/// at a time.
void produce_shard(const ConversionPlan& plan, const Checkpoint& checkpoint, std::size_t shard,
                   Refitted refitted, ByteSink& sink, ThreadPool& pool,
                   const std::stop_token& stop);

/// Threads that may each hold a whole source tensor while all of them stay within one layer's
/// bytes.
std::size_t concurrent_tensors(const ConversionPlan& plan);

/// "layer 7, expert 3, neuron 1021" for a byte of an output tensor; "" if it is no FFN tensor.
std::string place_of(const ConversionPlan& plan, std::size_t tensor, std::uint64_t byte);

}  // namespace moefy
