// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/status/status.h"
#include "absl/time/time.h"

#include "common/error.h"
#include "common/redis/client.h"

namespace sallyport {

// After RedisOptions::failures_to_bypass failures in a row nothing is sent for `bypass_for`. Its owner locks.
class RedisBypass {
 public:
  explicit RedisBypass(const RedisOptions& options)
      : failures_to_bypass_(options.failures_to_bypass), bypass_for_(options.bypass_for) {}

  // UNAVAILABLE with reason "redis_bypassed" while nothing is sent. `now`: of the steady clock.
  absl::Status Check(absl::Duration now) const {
    if (now >= until_) return absl::OkStatus();
    return WithReason(absl::UnavailableError("redis: left out after failures"), "redis_bypassed");
  }
  void Answered() { failures_ = 0; }
  void Failed(absl::Duration now) {
    if (++failures_ < failures_to_bypass_) return;
    // One more failure after the window opens the next one.
    failures_ = failures_to_bypass_ - 1;
    until_ = now + bypass_for_;
  }

 private:
  const int failures_to_bypass_;
  const absl::Duration bypass_for_;
  int failures_ = 0;
  absl::Duration until_ = absl::ZeroDuration();
};

}  // namespace sallyport
