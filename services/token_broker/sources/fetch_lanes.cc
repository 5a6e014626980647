// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/sources/fetch_lanes.h"

#include <utility>

#include "absl/time/time.h"

namespace sallyport::token_broker {

bool FetchLanes::Post(const std::string& lane, std::function<void()> task) {
  {
    MutexLock lock(mu_);
    Lane& own = lanes_[lane];
    if (own.running >= options_.width) {
      if (waiting_ >= options_.max_waiting) return false;
      own.waiting.push_back(std::move(task));
      ++waiting_;
      return true;
    }
    ++own.running;
  }
  if (runner_.Post(InLane(lane, std::move(task)))) return true;
  Leave(lane);
  return false;
}

std::function<void()> FetchLanes::InLane(const std::string& lane, std::function<void()> task) {
  return [this, lane, task = std::move(task)] {
    task();
    Leave(lane);
  };
}

void FetchLanes::Leave(const std::string& lane) {
  std::function<void()> next;
  {
    MutexLock lock(mu_);
    const auto found = lanes_.find(lane);
    if (found->second.waiting.empty()) {
      if (--found->second.running == 0) lanes_.erase(found);
      return;
    }
    next = std::move(found->second.waiting.front());
    found->second.waiting.pop_front();
    --waiting_;
  }
  // Behind what other lanes have posted meanwhile; it was admitted, so it is not refused for length.
  runner_.PostAfter(absl::ZeroDuration(), InLane(lane, std::move(next)));
}

}  // namespace sallyport::token_broker
