// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <utility>

#include "absl/status/status.h"
#include "absl/time/time.h"

#include "common/mutex.h"
#include "services/authn/audit.h"
#include "services/authn/rate_limit.h"

namespace sallyport::authn {

// Audit events that anybody who reaches the port can cause without being known: a refused client, a registration, a
// paused sign-in. Each costs a row and a synced write, so an endless number of them would fill the outbox, and then
// what must be recorded is refused for everybody. 60 at once and one a second are recorded; those beyond are counted,
// and the next that is recorded says how many ("unrecorded"). Thread-safe.
class AnonymousEvents {
 public:
  absl::Status Record(Audit& audit, audit::v1::Event event, absl::Time now) {
    return Admit(event, now) ? audit.Record(std::move(event)) : absl::OkStatus();
  }
  // Whether `event` is to be recorded, by whoever writes it in a transaction.
  bool Admit(audit::v1::Event& event, absl::Time now) {
    MutexLock lock(mu_);
    if (!limit_.Take(now)) {
      ++unrecorded_;
      return false;
    }
    if (const uint64_t unrecorded = std::exchange(unrecorded_, 0); unrecorded > 0) {
      (*event.mutable_details())["unrecorded"] = std::to_string(unrecorded);
    }
    return true;
  }

 private:
  RateLimit limit_{60, absl::Seconds(1)};
  Mutex mu_;
  uint64_t unrecorded_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace sallyport::authn
