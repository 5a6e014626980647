// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ctime>

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace sallyport {

// Pure code takes `absl::Time now`; only services and background tasks hold a Clock, and read it once a request. The
// only place where absl::Now() may appear.
class Clock {
 public:
  virtual ~Clock() = default;
  // Wall-clock time: may be set forth and back.
  virtual absl::Time Now() const = 0;
  // For how long something took: since an unknown moment, never set, and counting on while the machine sleeps.
  virtual absl::Duration Elapsed() const = 0;
};

class SystemClock final : public Clock {
 public:
  absl::Time Now() const override { return absl::Now(); }
  absl::Duration Elapsed() const override {
    timespec time{};
    clock_gettime(CLOCK_BOOTTIME, &time);
    return absl::DurationFromTimespec(time);
  }
};

}  // namespace sallyport
