#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "moefy/core/error.hpp"
#include "moefy/core/file.hpp"
#include "moefy/schedule/journal.hpp"
#include "process_identity.hpp"

namespace moefy {
namespace {

namespace fs = std::filesystem;

constexpr std::chrono::seconds kForeignPatience{60};
constexpr std::uint64_t kLongestLock = 1 << 16;

class Descriptor {
 public:
  explicit Descriptor(int descriptor) : descriptor_(descriptor) {}
  ~Descriptor() {
    if (descriptor_ >= 0) close(descriptor_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return descriptor_; }

 private:
  int descriptor_;
};

void write_whole(const Descriptor& file, const fs::path& path, const std::string& text) {
  const ssize_t written = pwrite(file.get(), text.data(), text.size(), 0);
  if (written != static_cast<ssize_t>(text.size())) {
    throw IoError(path.string(), "write the lock", written < 0 ? errno : ENOSPC);
  }
  // No fsync: a crash of the host ends the holder, too, and another host sees the file when it is
  // closed.
  if (ftruncate(file.get(), static_cast<off_t>(text.size())) != 0) {
    throw IoError(path.string(), "write the lock", errno);
  }
}

/// False if there is a lock already.
bool create_lock(const fs::path& path, const std::string& text) {
  const Descriptor file(open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
  if (file.get() < 0) {
    if (errno == EEXIST) return false;
    throw IoError(path.string(), "create the lock", errno);
  }
  try {
    write_whole(file, path, text);
  } catch (...) {
    unlink(path.c_str());
    throw;
  }
  return true;
}

std::string read_lock(const Descriptor& file, const fs::path& path) {
  std::array<char, 4096> text{};
  const ssize_t length = pread(file.get(), text.data(), text.size(), 0);
  if (length < 0) throw IoError(path.string(), "read the lock", errno);
  return {text.data(), static_cast<std::size_t>(length)};
}

/// How long ago the lock was touched, by the clock of the file system: hosts' clocks differ.
std::chrono::seconds untouched_for(const Descriptor& file, const fs::path& path) {
  std::string probe = path.string() + ".XXXXXX";
  const Descriptor now(mkostemp(probe.data(), O_CLOEXEC));
  if (now.get() < 0) throw IoError(path.string(), "create a file beside it", errno);
  unlink(probe.c_str());
  struct stat touched {};
  struct stat current {};
  if (fstat(file.get(), &touched) != 0 || fstat(now.get(), &current) != 0) {
    throw IoError(path.string(), "ask for the time of the lock", errno);
  }
  return std::chrono::seconds(current.st_mtim.tv_sec - touched.st_mtim.tv_sec);
}

struct Holder {
  std::string text;  ///< for messages
  bool alive = true;
};

Holder examine(const Descriptor& file, const fs::path& path, const std::string& content) {
  const auto holder = ProcessIdentity::parse(content);
  const std::string who = holder ? holder->describe() : "a process that did not say its name";
  if (holder && holder->same_host_as(ProcessIdentity::own())) return {who, holder->is_running()};
  const auto age = untouched_for(file, path);
  return {fmt::format("{}, last heard of {} s ago", who, age.count()), age < kForeignPatience};
}

enum class Attempt { taken, vanished };

/// Takes an existing lock over if its holder is gone. The file is locked while that is decided, so
/// that two processes cannot both do it.
Attempt take_over(const fs::path& path, const std::string& own,
                  const std::function<void(const std::string&)>& warn) {
  const Descriptor file(open(path.c_str(), O_RDWR | O_CLOEXEC));
  if (file.get() < 0) {
    if (errno == ENOENT) return Attempt::vanished;
    throw IoError(path.string(), "open the lock", errno);
  }
  if (flock(file.get(), LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
    throw UsageError(fmt::format("{}: another moefy is just taking over this lock", path.string()));
  }
  const Holder holder = examine(file, path, read_lock(file, path));
  if (holder.alive) {
    throw UsageError(
        fmt::format("{}: {} is working on this output; wait for it or choose another "
                    "(if it is surely gone, remove the file)",
                    path.string(), holder.text));
  }
  struct stat opened {};
  struct stat named {};
  if (fstat(file.get(), &opened) != 0 || stat(path.c_str(), &named) != 0 ||
      opened.st_ino != named.st_ino || opened.st_dev != named.st_dev) {
    return Attempt::vanished;
  }
  write_whole(file, path, own);
  // On a file system without flock two may come here; the last to write has it.
  if (read_text_file(path, kLongestLock) != own) return Attempt::vanished;
  warn(fmt::format("{}: taken over from {}, which is gone", path.string(), holder.text));
  return Attempt::taken;
}

}  // namespace

struct OutputLock::Impl {
  fs::path path;
  std::string content;
  std::mutex mutex;
  std::condition_variable wake;
  bool stopping = false;
  std::thread toucher;

  void touch_until_stopped(std::chrono::milliseconds interval) {
    std::unique_lock lock(mutex);
    while (!wake.wait_for(lock, interval, [this] { return stopping; })) {
      // A touch that fails makes the lock look old; other processes then decide by themselves.
      utimensat(AT_FDCWD, path.c_str(), nullptr, 0);
    }
  }
};

OutputLock::OutputLock(fs::path path, const std::function<void(const std::string&)>& warn,
                       std::chrono::milliseconds touch_interval)
    : impl_(std::make_unique<Impl>()) {
  impl_->path = std::move(path);
  impl_->content = ProcessIdentity::own().text();
  while (!create_lock(impl_->path, impl_->content) &&
         take_over(impl_->path, impl_->content, warn) == Attempt::vanished) {
  }
  impl_->toucher = std::thread(
      [impl = impl_.get(), touch_interval] { impl->touch_until_stopped(touch_interval); });
}

OutputLock::~OutputLock() {
  {
    const std::lock_guard lock(impl_->mutex);
    impl_->stopping = true;
  }
  impl_->wake.notify_one();
  impl_->toucher.join();
  try {
    if (read_text_file(impl_->path, kLongestLock) == impl_->content) unlink(impl_->path.c_str());
  } catch (const Error&) {
    // Unreadable or gone: not ours any more.
  }
}

}  // namespace moefy
