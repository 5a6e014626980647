// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

// What platforms are told, beside what parts of the broker say for themselves; see platform.proto.
namespace sallyport::token_broker {

inline constexpr char kPlatformNotGranted[] = "platform_not_granted";
inline constexpr char kPlatformRateLimited[] = "platform_rate_limited";
inline constexpr char kNoAllowedOrigin[] = "no_allowed_origin";

// UNAVAILABLE reason gateway_unavailable, retry after 1 s.
absl::Status GatewayUnavailable(absl::string_view message);
// UNAVAILABLE reason config_behind, retry after 1 s: the registry has told nothing yet.
absl::Status NothingConfigured();

// A status of the broker's parts as a platform may hear it. What only says that a part of the gateway did not answer,
// or did not take the passport that the broker asked with, is UNAVAILABLE with retry_after: neither is the platform's
// doing, and the text of another process names its addresses. What the broker may not do for itself is
// FAILED_PRECONDITION: PERMISSION_DENIED is about grants.
absl::Status ForPlatform(const absl::Status& status);
// A decision against the platform, which is recorded.
bool IsPlatformRefusal(const absl::Status& status);

}  // namespace sallyport::token_broker
