// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "common/clock.h"
#include "common/mutex.h"

namespace sallyport {

// Stands still until told.
class FakeClock final : public Clock {
 public:
  explicit FakeClock(absl::Time now = absl::FromUnixSeconds(1'800'000'000)) : now_(now) {}
  absl::Time Now() const override {
    MutexLock lock(mu_);
    return now_;
  }
  absl::Duration Elapsed() const override {
    MutexLock lock(mu_);
    return elapsed_;
  }
  // As an administrator does: no time passes.
  void Set(absl::Time now) {
    MutexLock lock(mu_);
    now_ = now;
  }
  void Advance(absl::Duration by) {
    MutexLock lock(mu_);
    now_ += by;
    elapsed_ += by;
  }

 private:
  mutable Mutex mu_;
  absl::Time now_ ABSL_GUARDED_BY(mu_);
  absl::Duration elapsed_ ABSL_GUARDED_BY(mu_) = absl::Hours(1);
};

}  // namespace sallyport
