// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <thread>
#include <vector>

#include "common/mutex.h"

namespace sallyport {

// A fixed number of threads in front of a bounded queue.
class ThreadPool {
 public:
  ThreadPool(int threads, size_t max_queue);
  // Runs what is queued, then joins. Tasks must therefore end by themselves.
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  // False, without running it, when the queue is full. Tasks must not throw.
  [[nodiscard]] bool Submit(std::function<void()> task);
  size_t queued() const;

 private:
  void Run();

  const size_t max_queue_;
  mutable Mutex mu_;
  std::condition_variable_any changed_;
  std::deque<std::function<void()>> queue_ ABSL_GUARDED_BY(mu_);
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::vector<std::thread> threads_;
};

}  // namespace sallyport
