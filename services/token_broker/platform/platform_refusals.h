// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "common/clock.h"
#include "common/mutex.h"
#include "services/token_broker/deferred_audit.h"
#include "services/token_broker/platform/budgets.h"
#include "services/token_broker/platform/platform_metrics.h"

namespace sallyport::token_broker {

// What platforms are refused, on record. A platform may ask without end for what it is not given: of each, 60 refusals
// at once and one a second are recorded, the next telling how many were left out (`unrecorded`). Thread-safe.
class PlatformRefusals {
 public:
  static constexpr Budgets::Limit kRecorded = {.per_second = 1, .at_once = 60};

  // Both outlive this.
  PlatformRefusals(DeferredAudit& audit, const Clock& clock);

  struct Refusal {
    std::string platform;  // Of authn's configuration.
    std::string subject;   // Empty where it was refused before that was known.
    PlatformMethod method;
    std::string app;  // As asked for.
    std::string rule;
  };
  // A refusal stands with or without its record.
  void Note(const Refusal& refusal);

 private:
  DeferredAudit& audit_;
  const Clock& clock_;
  Budgets budgets_;
  Mutex mu_;
  std::map<std::string, int64_t> unrecorded_ ABSL_GUARDED_BY(mu_);  // By platform.
};

}  // namespace sallyport::token_broker
