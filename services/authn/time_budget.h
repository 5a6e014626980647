// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>

#include "absl/time/time.h"
#include <grpcpp/server_context.h>

#include "common/clock.h"

namespace sallyport::authn {

// How long one RPC goes on with work that has no end of its own. What it does not get done it leaves to the next call,
// and answers before its caller gives up: the HTTP API waits 20 s.
class TimeBudget {
 public:
  static constexpr absl::Duration kMost = absl::Seconds(12);
  // What was begun within the budget may take this much longer.
  static constexpr absl::Duration kGrace = absl::Seconds(6);

  TimeBudget(const Clock& clock, absl::Duration time) : clock_(clock), end_(clock.Elapsed() + time) {}
  static TimeBudget Of(const grpc::ServerContext& context, const Clock& clock) {
    const absl::Duration patience = absl::FromChrono(context.deadline()) - SystemClock().Now();
    return TimeBudget(clock, std::min(kMost, patience - kGrace));
  }

  absl::Duration left() const { return end_ - clock_.Elapsed(); }
  bool IsOver() const { return left() <= absl::ZeroDuration(); }

 private:
  const Clock& clock_;
  absl::Duration end_;
};

}  // namespace sallyport::authn
