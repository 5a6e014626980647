// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include <prometheus/counter.h>

#include "common/mutex.h"
#include "sallyport/authn/v1/platforms.pb.h"
#include "services/authn/anonymous_events.h"
#include "services/authn/audit.h"
#include "services/authn/rate_limit.h"

namespace sallyport::authn::platforms {

// What became of one AuthenticatePlatform.
struct PlatformOutcome {
  // Filled as far as platform and user became known, also when `response` refuses them.
  std::string platform;
  std::string subject;
  std::string client_id;
  // "certificate", "service_account", "certificate+service_account".
  const char* proof = "";
  // By what the user was known: "token", "named"; empty: none was.
  const char* user = "";
  // The grant that covers the user, or the reason of the refusal.
  std::string rule;
  // Which check of a token failed, for the log.
  std::string check;
  // Where it may be audited who the user is: a token of the identity provider's own is all we see of its sign-in.
  bool names_user = false;
  absl::StatusOr<v1::AuthenticatePlatformResponse> response;
};

// Metrics, log and audit of the platforms. A platform that is known may still ask without end for what it is not given:
// of each, refusals are audited 60 at once and one a second. Who is not known is counted and logged, and not audited:
// anybody could fill the table. Thread-safe.
class PlatformRecords {
 public:
  // `audit` outlives this.
  PlatformRecords(Audit& audit, const std::vector<std::string>& platforms);

  // The error is that of the audit, with which nothing is answered.
  absl::Status Note(const PlatformOutcome& outcome, absl::Time now);

 private:
  struct Series {
    std::map<std::string, prometheus::Counter*, std::less<>> by_outcome;
    AnonymousEvents denials;
    RateLimit lines{10, absl::Seconds(5)};
    Mutex mu;
    uint64_t unlogged ABSL_GUARDED_BY(mu) = 0;
  };
  void LogRefusal(const PlatformOutcome& outcome, Series& series, absl::Time now) const;

  Audit& audit_;
  std::map<std::string, Series, std::less<>> series_;  // By platform; kUnknownPlatform is everybody else.
};

}  // namespace sallyport::authn::platforms
