// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"

#include "common/caller/passport.h"
#include "services/token_broker/platform/platform_metrics.h"

namespace sallyport::token_broker {

// Who a caller is and for whom it asks, as authn has said. Immutable.
struct Admission {
  std::string platform;
  // Of purpose platform, verified: `subject` is the user, `actor` the platform.
  Passport passport;
  // Slugs, or "*".
  std::vector<std::string> apps;
  std::vector<std::string> return_origins;
  double rate_limit = 0;
  int rate_burst = 0;
  // Authn is asked again then.
  absl::Time valid_until;
  absl::Time asked_at;
  // What ends it sooner (invalidations): "TOKEN <digest>", "SESSION <id>", "SUBJECT <subject>".
  std::vector<std::string> ended_by;
  PlatformCounters* counters = nullptr;

  bool MayAskFor(absl::string_view app_slug) const {
    return std::any_of(apps.begin(), apps.end(),
                       [&](const std::string& granted) { return granted == "*" || granted == app_slug; });
  }
};
using SharedAdmission = std::shared_ptr<const Admission>;

}  // namespace sallyport::token_broker
