// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/freshness.h"

#include <algorithm>
#include <cstdint>

namespace sallyport::token_broker {
namespace {

absl::Duration Ttl(const TokenTimes& times) {
  // Unknown start: as if it lived an hour, the common case.
  const absl::Duration ttl = times.expires_at - times.obtained_at;
  return ttl == absl::InfiniteDuration() ? absl::Hours(1) : std::max(ttl, absl::ZeroDuration());
}

// FNV-1a: must be the same in every process, which absl::Hash and std::hash do not promise.
uint64_t StableHash(absl::string_view text) {
  uint64_t hash = 14695981039346656037U;
  for (const char c : text) {
    hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211U;
  }
  return hash;
}

}  // namespace

absl::Duration ExpirySkew(const TokenTimes& times) { return std::min(absl::Seconds(30), Ttl(times) / 10); }

absl::Duration RenewalLead(const TokenTimes& times, absl::string_view key) {
  const absl::Duration ttl = Ttl(times);
  const absl::Duration jitter = absl::Milliseconds(static_cast<int64_t>(StableHash(key) % 60'000));
  const absl::Duration wanted = std::max(absl::Seconds(60), std::min(absl::Seconds(300), ttl / 10)) + jitter;
  return std::min(wanted, ttl / 3);
}

bool IsUsable(const TokenTimes& times, absl::Time now) {
  return times.expires_at == absl::InfiniteFuture() || times.expires_at - now > ExpirySkew(times);
}

bool IsFresh(const TokenTimes& times, absl::string_view key, absl::Time now) {
  return times.expires_at == absl::InfiniteFuture() || times.expires_at - now > RenewalLead(times, key);
}

bool Outlasts(const TokenTimes& times, absl::Duration least, absl::Time now) {
  constexpr absl::Duration kNew = absl::Minutes(1);
  return times.expires_at == absl::InfiniteFuture() || times.expires_at - ExpirySkew(times) - now >= least ||
         (IsUsable(times, now) && now - times.obtained_at < kNew);
}

}  // namespace sallyport::token_broker
