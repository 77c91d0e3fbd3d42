#include "moefy/core/hash.hpp"

#include <fmt/format.h>
#include <xxhash.h>
#if MOEFY_XXHASH_DISPATCH
#include <xxh_x86dispatch.h>  // the same functions, with the widest vectors of this CPU
#endif

#include <array>
#include <new>

namespace moefy {

struct Hasher::State {
  struct Free {
    void operator()(XXH3_state_t* state) const { XXH3_freeState(state); }
  };
  std::unique_ptr<XXH3_state_t, Free> xxh{XXH3_createState()};
};

namespace {

Digest to_digest(XXH128_hash_t hash) { return {hash.low64, hash.high64}; }

}  // namespace

std::string Digest::hex() const { return fmt::format("{:016x}{:016x}", high, low); }

Hasher::Hasher() : state_(std::make_unique<State>()) {
  if (!state_->xxh) throw std::bad_alloc();
  XXH3_128bits_reset(state_->xxh.get());
}
Hasher::~Hasher() = default;
Hasher::Hasher(Hasher&&) noexcept = default;
Hasher& Hasher::operator=(Hasher&&) noexcept = default;

void Hasher::add(std::span<const std::byte> bytes) {
  XXH3_128bits_update(state_->xxh.get(), bytes.data(), bytes.size());
}

void Hasher::add_text(std::string_view text) {
  add_number(text.size());
  add(std::as_bytes(std::span(text)));
}

void Hasher::add_number(std::uint64_t value) {
  std::array<std::byte, 8> bytes;
  for (std::size_t i = 0; i < bytes.size(); ++i)
    bytes[i] = static_cast<std::byte>(value >> (8 * i) & 0xff);
  add(bytes);
}

Digest Hasher::digest() const { return to_digest(XXH3_128bits_digest(state_->xxh.get())); }

Digest hash_bytes(std::span<const std::byte> bytes) {
  return to_digest(XXH3_128bits(bytes.data(), bytes.size()));
}

}  // namespace moefy
