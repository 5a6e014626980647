// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace sallyport::token_broker {

// What is believed of a provider's word on how long a token lives.
inline constexpr absl::Duration kMaxTokenLifetime = absl::Hours(24 * 366);

// When a token may be used and when it should be renewed. Pure. A token without a known end is always fresh.
struct TokenTimes {
  absl::Time obtained_at = absl::InfinitePast();
  absl::Time expires_at = absl::InfiniteFuture();
};

// How long before its end a token counts as ended: min(30 s, ttl/10), so that short-lived tokens are usable at all.
absl::Duration ExpirySkew(const TokenTimes& times);
// How long before its end a token is renewed: min(max(60 s, min(300 s, ttl/10)) + jitter, ttl/3). The jitter (below 60
// s) depends on `key` alone, so that replicas agree and connections made together do not renew together.
absl::Duration RenewalLead(const TokenTimes& times, absl::string_view key);

bool IsUsable(const TokenTimes& times, absl::Time now);
bool IsFresh(const TokenTimes& times, absl::string_view key, absl::Time now);
// It can be used for `least` from now on, or was obtained less than a minute ago: a new one would not last longer, and
// a provider whose tokens live shorter than is asked for is not asked each time.
bool Outlasts(const TokenTimes& times, absl::Duration least, absl::Time now);

}  // namespace sallyport::token_broker
