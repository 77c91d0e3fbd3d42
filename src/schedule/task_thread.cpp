#include "task_thread.hpp"

#include <utility>

#include "moefy/core/error.hpp"

namespace moefy {

void Doorbell::ring() {
  {
    const std::lock_guard lock(mutex_);
    pending_ = true;
  }
  rung_.notify_one();
}

void Doorbell::wait(std::chrono::microseconds longest) {
  std::unique_lock lock(mutex_);
  rung_.wait_for(lock, longest, [this] { return pending_; });
  pending_ = false;
}

void Doorbell::wait() {
  std::unique_lock lock(mutex_);
  rung_.wait(lock, [this] { return pending_; });
  pending_ = false;
}

TaskThread::TaskThread(Doorbell& doorbell) : doorbell_(doorbell), thread_([this] { run(); }) {}

TaskThread::~TaskThread() {
  {
    const std::lock_guard lock(mutex_);
    quit_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

void TaskThread::start(std::function<void()> task) {
  require(!busy_, "a task thread has one task at a time");
  busy_ = true;
  {
    const std::lock_guard lock(mutex_);
    task_ = std::move(task);
  }
  wake_.notify_one();
}

std::optional<std::exception_ptr> TaskThread::take_outcome() {
  const std::lock_guard lock(mutex_);
  auto outcome = std::exchange(outcome_, std::nullopt);
  if (outcome) busy_ = false;
  return outcome;
}

void TaskThread::run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    wake_.wait(lock, [this] { return quit_ || task_; });
    if (!task_) return;
    const auto task = std::exchange(task_, nullptr);
    lock.unlock();
    std::exception_ptr error;
    try {
      task();
    } catch (...) {
      error = std::current_exception();
    }
    lock.lock();
    outcome_ = error;
    doorbell_.ring();
  }
}

}  // namespace moefy
