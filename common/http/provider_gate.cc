// SPDX-License-Identifier: Apache-2.0
#include "common/http/provider_gate.h"

#include "absl/strings/str_cat.h"

#include "common/error.h"

namespace sallyport {

absl::Status ProviderGate::Enter(const std::string& key, absl::Time now) {
  MutexLock lock(mu_);
  if (entries_.size() >= options_.max_keys && entries_.count(key) == 0) Trim(now);
  Entry& entry = entries_[key];
  const bool tripped = entry.failures >= options_.failures_to_open;
  if (tripped && (now < entry.open_until || entry.probing)) {
    const absl::Duration wait = entry.probing ? absl::Seconds(1) : entry.open_until - now;
    return WithRetryAfter(
        WithReason(absl::UnavailableError(absl::StrCat(key, " failed repeatedly and is not called for a while")),
                   "circuit_open"),
        wait);
  }
  if (entry.in_flight >= options_.max_in_flight) {
    return WithRetryAfter(absl::ResourceExhaustedError(absl::StrCat("too many calls to ", key, " are in flight")),
                          absl::Seconds(1));
  }
  entry.probing = tripped;
  ++entry.in_flight;
  return absl::OkStatus();
}

void ProviderGate::Leave(const std::string& key, Outcome outcome, absl::Time now) {
  MutexLock lock(mu_);
  Entry& entry = entries_[key];
  --entry.in_flight;
  entry.probing = false;
  if (outcome == Outcome::kSuccess) entry.failures = 0;
  if (outcome == Outcome::kFailure && ++entry.failures >= options_.failures_to_open) {
    entry.open_until = now + options_.open_for;
  }
}

void ProviderGate::Trim(absl::Time now) {
  for (auto it = entries_.begin(); it != entries_.end();) {
    const Entry& entry = it->second;
    const bool open = entry.failures >= options_.failures_to_open && now < entry.open_until;
    it = entry.in_flight == 0 && !open ? entries_.erase(it) : std::next(it);
  }
}

}  // namespace sallyport
