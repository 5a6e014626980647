// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>

#include "absl/time/time.h"

#include "common/mutex.h"

namespace sallyport::authn {

// A token bucket: `burst` at once, then one every `interval`. Thread-safe.
class RateLimit {
 public:
  RateLimit(int burst, absl::Duration interval) : burst_(burst), interval_(interval) {}

  // Takes one if there is one.
  bool Take(absl::Time now) {
    MutexLock lock(mu_);
    // `full_at_` is when the bucket will be full again: each one taken puts it off by an interval.
    const absl::Time full_at = std::max(full_at_, now);
    if (full_at + interval_ > now + interval_ * burst_) {
      return false;
    }
    full_at_ = full_at + interval_;
    return true;
  }
  // How long until Take can succeed.
  absl::Duration RetryAfter(absl::Time now) const {
    MutexLock lock(mu_);
    return std::max(absl::ZeroDuration(), full_at_ + interval_ - interval_ * burst_ - now);
  }

 private:
  const int burst_;
  const absl::Duration interval_;
  mutable Mutex mu_;
  absl::Time full_at_ ABSL_GUARDED_BY(mu_) = absl::InfinitePast();
};

}  // namespace sallyport::authn
