// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <deque>
#include <functional>
#include <map>
#include <string>

#include "common/mutex.h"
#include "services/token_broker/task_runner.h"

namespace sallyport::token_broker {

// Fetches in lanes, one for each token endpoint: so many of a lane at a time, the others of it wait. One that is slow,
// and is asked for many tokens, leaves threads to the rest. Thread-safe.
class FetchLanes {
 public:
  struct Options {
    size_t width = 24;
    size_t max_waiting = 20'000;  // In all lanes.
  };
  // The runner outlives this, and must be stopped before this goes.
  FetchLanes(TaskRunner& runner, Options options) : runner_(runner), options_(options) {}

  // False, without running it, when too many wait.
  [[nodiscard]] bool Post(const std::string& lane, std::function<void()> task);

 private:
  struct Lane {
    size_t running = 0;
    std::deque<std::function<void()>> waiting;
  };
  // The task, and after it the next of its lane.
  std::function<void()> InLane(const std::string& lane, std::function<void()> task);
  void Leave(const std::string& lane);

  TaskRunner& runner_;
  const Options options_;
  Mutex mu_;
  std::map<std::string, Lane> lanes_ ABSL_GUARDED_BY(mu_);  // Those in use.
  size_t waiting_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace sallyport::token_broker
