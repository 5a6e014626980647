// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <condition_variable>

#include "common/mutex.h"

namespace sallyport::testing {

// Lets calls through, or holds them until opened. Thread-safe.
class Gate {
 public:
  void Close() {
    MutexLock lock(mu_);
    open_ = false;
  }
  void Open() {
    MutexLock lock(mu_);
    open_ = true;
    changed_.notify_all();
  }
  void Pass() {
    MutexLock lock(mu_);
    ++arrived_;
    changed_.notify_all();
    while (!open_) changed_.wait(mu_);
  }
  int arrived() const {
    MutexLock lock(mu_);
    return arrived_;
  }
  // Until so many calls came in all; false after a minute.
  bool AwaitArrivals(int count) {
    const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    MutexLock lock(mu_);
    while (arrived_ < count) {
      if (changed_.wait_until(mu_, until) == std::cv_status::timeout) return false;
    }
    return true;
  }

 private:
  mutable Mutex mu_;
  std::condition_variable_any changed_;
  bool open_ ABSL_GUARDED_BY(mu_) = true;
  int arrived_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace sallyport::testing
