// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>

#include "absl/time/time.h"

namespace sallyport {

// Exponential backoff with full jitter over its upper half. Pure: the caller brings randomness and does the waiting.
class Backoff {
 public:
  Backoff(absl::Duration initial, absl::Duration max) : initial_(initial), max_(max), current_(initial) {}

  // How long to wait now. `unit` is uniform in [0, 1).
  absl::Duration Next(double unit) {
    const absl::Duration wait = current_ * (0.5 + unit / 2);
    current_ = std::min(current_ * 2, max_);
    return wait;
  }
  void Reset() { current_ = initial_; }

 private:
  absl::Duration initial_;
  absl::Duration max_;
  absl::Duration current_;
};

}  // namespace sallyport
