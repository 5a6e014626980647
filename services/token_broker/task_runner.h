// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <thread>
#include <utility>
#include <vector>

#include "absl/time/time.h"

#include "common/mutex.h"

namespace sallyport::token_broker {

// A bounded number of threads (started as needed) for tasks that may block, and for tasks that come due later: what
// waits holds no thread. Thread-safe. Tasks must not throw.
class TaskRunner {
 public:
  TaskRunner(int max_threads, size_t max_queue);
  ~TaskRunner();
  TaskRunner(const TaskRunner&) = delete;
  TaskRunner& operator=(const TaskRunner&) = delete;

  // False, without running it, when the queue is full or after Stop.
  [[nodiscard]] bool Post(std::function<void()> task);
  // Never refused for length (who waits was admitted before); dropped after Stop.
  void PostAfter(absl::Duration delay, std::function<void()> task);
  // Ends what runs, drops what waits. Not from a task.
  void Stop();
  size_t queued() const;
  struct Load {
    size_t busy = 0;                             // Threads that run a task.
    absl::Duration wait = absl::ZeroDuration();  // For how long the next task has been due; zero: none is.
  };
  Load load() const;

 private:
  using Due = std::chrono::steady_clock::time_point;
  void Run();
  // While anything is left to do, somebody waits for it, if there are threads to be had.
  void KeepWatch() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Add(Due due, std::function<void()> task) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const size_t max_threads_;
  const size_t max_queue_;
  mutable Mutex mu_;
  std::condition_variable_any changed_;
  std::map<std::pair<Due, uint64_t>, std::function<void()>> tasks_ ABSL_GUARDED_BY(mu_);
  uint64_t next_ ABSL_GUARDED_BY(mu_) = 0;
  size_t idle_ ABSL_GUARDED_BY(mu_) = 0;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::vector<std::thread> threads_ ABSL_GUARDED_BY(mu_);
};

}  // namespace sallyport::token_broker
