// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <utility>

#include "absl/status/status.h"
#include "absl/time/time.h"

#include "common/mutex.h"
#include "services/authn/audit.h"
#include "services/authn/rate_limit.h"

namespace sallyport::authn::web {

// Audit events that anybody who reaches the port can cause without being known: a refused client, a registration, a
// paused sign-in. Each costs a row and a synced write, so an endless number of them would fill the outbox, and then
// what must be recorded is refused for everybody. 60 at once and one a second are recorded; those beyond are counted,
// and the next that is recorded says how many ("unrecorded"). Per process; thread-safe.
class AnonymousEvents {
 public:
  absl::Status Record(Audit& audit, audit::v1::Event event, absl::Time now) {
    uint64_t unrecorded = 0;
    {
      MutexLock lock(mu_);
      if (!limit_.Take(now)) {
        ++unrecorded_;
        return absl::OkStatus();
      }
      unrecorded = std::exchange(unrecorded_, 0);
    }
    if (unrecorded > 0) {
      (*event.mutable_details())["unrecorded"] = std::to_string(unrecorded);
    }
    return audit.Record(std::move(event));
  }

 private:
  RateLimit limit_{60, absl::Seconds(1)};
  Mutex mu_;
  uint64_t unrecorded_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace sallyport::authn::web
