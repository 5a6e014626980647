// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include <prometheus/counter.h>

#include "common/mutex.h"
#include "services/authn/rate_limit.h"

namespace sallyport::authn {

// Why tokens were refused, for the people who run the gateway: the caller only ever hears invalid_token. Counts by
// reason (sallyport_authn_tokens_refused_total) and writes a line that says which check failed at which server, never
// what the token held. Anybody can send tokens, so lines of a reason are 10 at once and then one every 5 s; the next
// one says how many were left out. Thread-safe.
class Refusals {
 public:
  Refusals();
  // `refused`: UNAUTHENTICATED, or UNAVAILABLE reason "unknown_key". Anything else is nobody's token, and ignored.
  // `server`: slug, or "api".
  void Note(const absl::Status& refused, absl::string_view server, absl::Time now);

 private:
  struct Series {
    prometheus::Counter* counter = nullptr;
    RateLimit lines{10, absl::Seconds(5)};
    Mutex mu;
    uint64_t unlogged ABSL_GUARDED_BY(mu) = 0;
  };
  // The reasons that are known; all others are one.
  std::map<std::string, Series, std::less<>> series_;
};

// Somebody else's issuer where one of ours was expected: the commonest slip of a new identity provider, a slash or a
// tenant. Both strings are written, because nothing else shows the difference; what came from outside is shortened to
// 256 bytes. 30 lines at once, then one every 5 s.
struct ForeignIssuer {
  // What carried it: "token", "id_token", "callback", "metadata".
  absl::string_view where;
  // Server slug or connector id.
  absl::string_view subject;
  absl::string_view said;
  std::vector<std::string> expected;
  absl::string_view remedy;
};
void LogForeignIssuer(const ForeignIssuer& foreign, absl::Time now);

}  // namespace sallyport::authn
