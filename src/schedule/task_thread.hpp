#pragma once

#include <chrono>
#include <condition_variable>
#include <exception>
#include <functional>
#include <mutex>
#include <optional>
#include <thread>

namespace moefy {

/// Wakes a thread that waits for one of several things. A ring that nobody waited for is not lost.
class Doorbell {
 public:
  void ring();
  /// Returns at the next ring, or after `longest`.
  void wait(std::chrono::microseconds longest);
  /// Returns at the next ring.
  void wait();

 private:
  std::mutex mutex_;
  std::condition_variable rung_;
  bool pending_ = false;
};

/// A thread that runs one task at a time and rings when it is done.
class TaskThread {
 public:
  explicit TaskThread(Doorbell& doorbell);
  /// Waits for the running task.
  ~TaskThread();
  TaskThread(const TaskThread&) = delete;
  TaskThread& operator=(const TaskThread&) = delete;

  /// Starts `task`; there must be none whose outcome was not taken.
  void start(std::function<void()> task);
  /// True from start() until take_outcome() gave something.
  bool busy() const { return busy_; }
  /// Of a finished task: null, or the exception it ended with. Nothing while it runs.
  std::optional<std::exception_ptr> take_outcome();

 private:
  void run();

  Doorbell& doorbell_;
  bool busy_ = false;  ///< of the starting thread only
  std::mutex mutex_;
  std::condition_variable wake_;
  std::function<void()> task_;
  std::optional<std::exception_ptr> outcome_;
  bool quit_ = false;
  std::thread thread_;
};

}  // namespace moefy
