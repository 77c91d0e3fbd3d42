#include "mpi_communicator.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <utility>

#include "mpi_call.hpp"

namespace moefy {
namespace {

constexpr int kBulkTag = 0;

std::string to_rank(int rank) { return fmt::format("to rank {}", rank); }
std::string from_rank(int rank) { return fmt::format("from rank {}", rank); }

/// Safe: chunks are never longer than kChunkBytes and the trailer.
int as_count(std::size_t bytes) { return static_cast<int>(bytes); }

/// A message part ends with the number of bytes that are still to come.
std::uint64_t pop_trailer(std::vector<std::byte>& bytes) {
  std::uint64_t bytes_to_come = 0;
  require(bytes.size() >= sizeof bytes_to_come, "a message part has its trailer");
  std::memcpy(&bytes_to_come, bytes.data() + bytes.size() - sizeof bytes_to_come,
              sizeof bytes_to_come);
  bytes.resize(bytes.size() - sizeof bytes_to_come);
  return bytes_to_come;
}

}  // namespace

MpiCommunicator::MpiCommunicator(std::chrono::milliseconds timeout, std::size_t chunk_bytes)
    : timeout_(timeout),
      chunk_bytes_(chunk_bytes),
      made_(std::make_shared<std::vector<MPI_Comm>>()) {
  require(chunk_bytes > 0 && chunk_bytes <= MpiEnvironment::kChunkBytes, "chunk size fits MPI");
  // The duplicates inherit the handler, so that errors come back as codes.
  check_mpi(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
  check_mpi(MPI_Comm_dup(MPI_COMM_WORLD, &messages_), "MPI_Comm_dup");
  check_mpi(MPI_Comm_dup(MPI_COMM_WORLD, &bulk_), "MPI_Comm_dup");
  ask_ranks();
}

MpiCommunicator::MpiCommunicator(const MpiCommunicator& whole, int color)
    : timeout_(whole.timeout_), chunk_bytes_(whole.chunk_bytes_), made_(whole.made_) {
  check_mpi(MPI_Comm_split(whole.messages_, color, whole.rank_, &messages_), "MPI_Comm_split");
  check_mpi(MPI_Comm_dup(messages_, &bulk_), "MPI_Comm_dup");
  ask_ranks();
}

void MpiCommunicator::ask_ranks() {
  made_->insert(made_->end(), {messages_, bulk_});
  check_mpi(MPI_Comm_rank(messages_, &rank_), "MPI_Comm_rank");
  check_mpi(MPI_Comm_size(messages_, &size_), "MPI_Comm_size");
  check_mpi(MPI_Comm_size(MPI_COMM_WORLD, &job_size_), "MPI_Comm_size");
  MPI_Group all = MPI_GROUP_NULL;
  MPI_Group own = MPI_GROUP_NULL;
  check_mpi(MPI_Comm_group(MPI_COMM_WORLD, &all), "MPI_Comm_group");
  check_mpi(MPI_Comm_group(messages_, &own), "MPI_Comm_group");
  std::vector<int> ranks(static_cast<std::size_t>(size_));
  std::iota(ranks.begin(), ranks.end(), 0);
  job_ranks_.resize(ranks.size());
  check_mpi(MPI_Group_translate_ranks(own, size_, ranks.data(), all, job_ranks_.data()),
            "MPI_Group_translate_ranks");
  check_mpi(MPI_Group_free(&all), "MPI_Group_free");
  check_mpi(MPI_Group_free(&own), "MPI_Group_free");
}

void MpiCommunicator::release() {
  for (MPI_Comm& comm : *made_) check_mpi(MPI_Comm_free(&comm), "MPI_Comm_free");
  made_->clear();
}

std::unique_ptr<Communicator> MpiCommunicator::split(int color) {
  require(color >= 0, "the color of a part is not negative");
  barrier();  // MPI_Comm_split waits without a limit; a rank that never comes is found here
  return std::unique_ptr<Communicator>(new MpiCommunicator(*this, color));
}

void MpiCommunicator::check_peer(int peer) const {
  require(peer >= 0 && peer < size_ && peer != rank_, "the peer is another rank");
}

void MpiCommunicator::post(int target, int tag, std::vector<std::byte> bytes) {
  check_peer(target);
  require(tag >= 0 && tag <= kMaxTag, "the tag is valid");
  std::size_t offset = 0;
  while (bytes.size() - offset > chunk_bytes_) {
    const auto begin = bytes.begin() + static_cast<std::ptrdiff_t>(offset);
    offset += chunk_bytes_;
    const auto end = bytes.begin() + static_cast<std::ptrdiff_t>(offset);
    post_part(target, tag, std::vector<std::byte>(begin, end), bytes.size() - offset);
  }
  bytes.erase(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(offset));
  post_part(target, tag, std::move(bytes), 0);
}

void MpiCommunicator::post_part(int target, int tag, std::vector<std::byte> bytes,
                                std::uint64_t bytes_to_come) {
  const std::size_t size = bytes.size();
  bytes.resize(size + sizeof bytes_to_come);
  std::memcpy(bytes.data() + size, &bytes_to_come, sizeof bytes_to_come);
  Outgoing& out = outgoing_.emplace_back(Outgoing{std::move(bytes), MPI_REQUEST_NULL});
  check_mpi(MPI_Isend(out.bytes.data(), as_count(out.bytes.size()), MPI_BYTE, target, tag,
                      messages_, &out.request),
            "MPI_Isend", to_rank(job_rank(target)));
}

void MpiCommunicator::drive_sends() {
  std::erase_if(outgoing_, [](Outgoing& out) {
    int done = 0;
    check_mpi(MPI_Test(&out.request, &done, MPI_STATUS_IGNORE), "MPI_Test", "of a send");
    return done != 0;
  });
}

bool MpiCommunicator::find_incoming() {
  if (incoming_.empty()) return find_incoming_from(MPI_ANY_SOURCE);
  // A message that is held up (its sender was stopped) does not hold up those of other ranks; the
  // next one of its own sender has to wait.
  for (int source = 0; source < size_; ++source) {
    const bool is_held_up = std::ranges::any_of(
        incoming_, [&](const Incoming& incoming) { return incoming.part.source == source; });
    if (source != rank_ && !is_held_up && find_incoming_from(source)) return true;
  }
  return false;
}

bool MpiCommunicator::find_incoming_from(int source) {
  int found = 0;
  MPI_Message handle = MPI_MESSAGE_NULL;
  MPI_Status status{};
  check_mpi(MPI_Improbe(source, MPI_ANY_TAG, messages_, &found, &handle, &status), "MPI_Improbe");
  if (found == 0) return false;
  int count = 0;
  check_mpi(MPI_Get_count(&status, MPI_BYTE, &count), "MPI_Get_count",
            from_rank(job_rank(status.MPI_SOURCE)));
  Incoming& incoming = incoming_.emplace_back();
  incoming.part.source = status.MPI_SOURCE;
  incoming.part.tag = status.MPI_TAG;
  incoming.part.bytes.resize(static_cast<std::size_t>(count));
  check_mpi(MPI_Imrecv(incoming.part.bytes.data(), count, MPI_BYTE, &handle, &incoming.request),
            "MPI_Imrecv", from_rank(job_rank(status.MPI_SOURCE)));
  return true;
}

std::optional<Communicator::Message> MpiCommunicator::take_part() {
  for (auto incoming = incoming_.begin(); incoming != incoming_.end(); ++incoming) {
    int done = 0;
    check_mpi(MPI_Test(&incoming->request, &done, MPI_STATUS_IGNORE), "MPI_Test",
              from_rank(job_rank(incoming->part.source)));
    if (done == 0) continue;
    Message part = std::move(incoming->part);
    incoming_.erase(incoming);
    return part;
  }
  return std::nullopt;
}

std::optional<Communicator::Message> MpiCommunicator::assemble(Message part) {
  const std::uint64_t bytes_to_come = pop_trailer(part.bytes);
  const std::pair key{part.source, part.tag};
  const auto begun = partial_.find(key);
  if (begun != partial_.end()) {
    begun->second.insert(begun->second.end(), part.bytes.begin(), part.bytes.end());
    if (bytes_to_come > 0) return std::nullopt;
    part.bytes = std::move(begun->second);
    partial_.erase(begun);
    return part;
  }
  if (bytes_to_come == 0) return part;
  part.bytes.reserve(part.bytes.size() + bytes_to_come);
  partial_.emplace(key, std::move(part.bytes));
  return std::nullopt;
}

std::optional<Communicator::Message> MpiCommunicator::poll() {
  drive_sends();
  do {
    while (auto part = take_part()) {
      if (auto message = assemble(std::move(*part))) return message;
    }
  } while (find_incoming());
  return std::nullopt;
}

std::size_t MpiCommunicator::add_bulk(bool sending, int peer, std::byte* data, std::size_t size) {
  check_peer(peer);
  for (const auto& [handle, other] : bulks_) {
    require(other.peer != peer || other.sending != sending,
            "one bulk transfer a peer and direction");
  }
  const std::size_t handle = next_handle_++;
  Bulk& bulk = bulks_[handle];
  bulk.sending = sending;
  bulk.peer = peer;
  bulk.data = data;
  bulk.size = size;
  start_chunk(bulk);
  return handle;
}

void MpiCommunicator::start_chunk(Bulk& bulk) {
  const int count = as_count(std::min(chunk_bytes_, bulk.size - bulk.offset));
  std::byte* data = bulk.data + bulk.offset;
  if (bulk.sending) {
    check_mpi(MPI_Isend(data, count, MPI_BYTE, bulk.peer, kBulkTag, bulk_, &bulk.request),
              "MPI_Isend", to_rank(job_rank(bulk.peer)));
  } else {
    check_mpi(MPI_Irecv(data, count, MPI_BYTE, bulk.peer, kBulkTag, bulk_, &bulk.request),
              "MPI_Irecv", from_rank(job_rank(bulk.peer)));
  }
}

std::size_t MpiCommunicator::receive_into(int source, std::span<std::byte> target) {
  return add_bulk(false, source, target.data(), target.size());
}

std::size_t MpiCommunicator::send_from(int target, std::span<const std::byte> bytes) {
  // MPI_Isend takes const memory; only the shared bookkeeping drops it.
  return add_bulk(true, target, const_cast<std::byte*>(bytes.data()), bytes.size());
}

bool MpiCommunicator::bulk_done(std::size_t handle) {
  const auto found = bulks_.find(handle);
  require(found != bulks_.end(), "the bulk transfer is under way");
  Bulk& bulk = found->second;
  int done = 0;
  MPI_Status status{};
  check_mpi(MPI_Test(&bulk.request, &done, &status), "MPI_Test",
            bulk.sending ? to_rank(job_rank(bulk.peer)) : from_rank(job_rank(bulk.peer)));
  if (done == 0) return false;
  std::size_t moved = std::min(chunk_bytes_, bulk.size - bulk.offset);
  if (!bulk.sending) {
    int count = 0;
    check_mpi(MPI_Get_count(&status, MPI_BYTE, &count), "MPI_Get_count",
              from_rank(job_rank(bulk.peer)));
    moved = static_cast<std::size_t>(count);
  }
  bulk.offset += moved;
  if (moved == chunk_bytes_) {
    start_chunk(bulk);
    return false;
  }
  bulks_.erase(found);
  return true;
}

template <class Done>
void MpiCommunicator::wait_until(Done&& done, const std::string& what) {
  Backoff backoff;
  WatchClock clock(std::chrono::steady_clock::now());
  while (!done()) {
    if (clock.look(std::chrono::steady_clock::now()) > patience(*this)) {
      abort(ExitCode::comm,
            fmt::format("{}: no answer within {} s. A rank hangs, is stopped or cannot be reached; "
                        "if it only needs longer, raise --timeout",
                        what, static_cast<double>(timeout_.count()) / 1000));
    }
    backoff.pause();
  }
}

void MpiCommunicator::wait_request(MPI_Request& request, const char* call) {
  wait_until(
      [&] {
        int done = 0;
        check_mpi(MPI_Test(&request, &done, MPI_STATUS_IGNORE), "MPI_Test",
                  fmt::format("of {}", call));
        return done != 0;
      },
      call);
}

void MpiCommunicator::wait_bulk(std::size_t handle) {
  const Bulk& bulk = bulks_.at(handle);
  const std::string what = bulk.sending ? "sending " + to_rank(job_rank(bulk.peer))
                                        : "receiving " + from_rank(job_rank(bulk.peer));
  wait_until([&] { return bulk_done(handle); }, what);
}

void MpiCommunicator::flush() {
  wait_until(
      [this] {
        drive_sends();
        return outgoing_.empty();
      },
      "delivering messages");
  while (!bulks_.empty()) wait_bulk(bulks_.begin()->first);
}

void MpiCommunicator::barrier() {
  MPI_Request request = MPI_REQUEST_NULL;
  check_mpi(MPI_Ibarrier(messages_, &request), "MPI_Ibarrier");
  wait_request(request, "MPI_Ibarrier");
}

void MpiCommunicator::broadcast(std::vector<std::byte>& bytes, int root) {
  const auto send = [&](void* data, std::size_t size) {
    MPI_Request request = MPI_REQUEST_NULL;
    check_mpi(MPI_Ibcast(data, as_count(size), MPI_BYTE, root, messages_, &request), "MPI_Ibcast",
              from_rank(job_rank(root)));
    wait_request(request, "MPI_Ibcast");
  };
  std::uint64_t size = bytes.size();
  send(&size, sizeof size);
  bytes.resize(size);
  for (std::size_t offset = 0; offset < size; offset += chunk_bytes_) {
    send(bytes.data() + offset, std::min(chunk_bytes_, bytes.size() - offset));
  }
}

std::vector<std::vector<std::byte>> MpiCommunicator::gather(std::span<const std::byte> bytes,
                                                            int root) {
  const std::uint64_t size = bytes.size();
  std::vector<std::uint64_t> sizes(rank_ == root ? static_cast<std::size_t>(size_) : 0);
  MPI_Request request = MPI_REQUEST_NULL;
  check_mpi(MPI_Igather(&size, sizeof size, MPI_BYTE, sizes.data(), sizeof size, MPI_BYTE, root,
                        messages_, &request),
            "MPI_Igather", to_rank(job_rank(root)));
  wait_request(request, "MPI_Igather");

  if (rank_ != root) {
    if (size > 0) wait_bulk(send_from(root, bytes));
    return {};
  }
  std::vector<std::vector<std::byte>> all(sizes.size());
  for (std::size_t source = 0; source < sizes.size(); ++source) {
    if (static_cast<int>(source) == rank_) {
      all[source].assign(bytes.begin(), bytes.end());
    } else if (sizes[source] > 0) {
      all[source].resize(sizes[source]);
      wait_bulk(receive_into(static_cast<int>(source), all[source]));
    }
  }
  return all;
}

void MpiCommunicator::abort(ExitCode code, const std::string& message) { end_job(code, message); }

}  // namespace moefy
