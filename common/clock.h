// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace sallyport {

// Wall-clock time. Pure code takes `absl::Time now`; only services and background tasks hold a Clock, and read it once
// a request. The only place where absl::Now() may appear.
class Clock {
 public:
  virtual ~Clock() = default;
  virtual absl::Time Now() const = 0;
};

class SystemClock final : public Clock {
 public:
  absl::Time Now() const override { return absl::Now(); }
};

}  // namespace sallyport
