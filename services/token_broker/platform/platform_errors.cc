// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/platform/platform_errors.h"

#include <algorithm>
#include <string>

#include "absl/time/time.h"

#include "common/error.h"
#include "common/json_log.h"

namespace sallyport::token_broker {
namespace {

constexpr char kGatewayUnavailable[] = "gateway_unavailable";
constexpr absl::Duration kRetryAfter = absl::Seconds(1);

bool IsNoAnswer(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kDeadlineExceeded:
    case absl::StatusCode::kAborted:
    case absl::StatusCode::kCancelled:
    case absl::StatusCode::kResourceExhausted:  // Of the part that was asked: the platform's own limit is the door's.
    case absl::StatusCode::kUnauthenticated:    // Who calls was settled at the door.
      return true;
    default:
      return false;
  }
}

// The vault looks at passports for itself, with a clock of its own.
bool IsOfPassport(const std::string& reason) {
  return reason == "bad_passport" || reason == "passport_required" || reason == "passport_mismatch";
}

}  // namespace

absl::Status GatewayUnavailable(absl::string_view message) {
  return WithDetail(absl::UnavailableError(message), {.reason = kGatewayUnavailable, .retry_after = kRetryAfter});
}

absl::Status NothingConfigured() {
  return WithDetail(absl::UnavailableError("the configuration has not arrived here yet"),
                    {.reason = "config_behind", .retry_after = kRetryAfter});
}

absl::Status ForPlatform(const absl::Status& status) {
  if (status.ok()) {
    return status;
  }
  ErrorDetail detail = DetailOf(status);
  const bool of_passport = IsOfPassport(detail.reason);
  if (absl::IsPermissionDenied(status) && !of_passport && detail.reason != kPlatformNotGranted) {
    // What the broker itself may not do, such as sending an app's secret to another origin: no grant would help.
    return WithDetail(absl::FailedPreconditionError(status.message()), detail);
  }
  if (!IsNoAnswer(status) && !of_passport) {
    return status;
  }
  // gRPC gives no reasons: what has one was said by a part of the gateway, or of a provider, for callers.
  const bool said = absl::IsUnavailable(status) && !detail.reason.empty() && !of_passport;
  detail.retry_after = std::max(detail.retry_after, kRetryAfter);
  if (said) {
    return WithDetail(absl::UnavailableError(status.message()), detail);
  }
  Log(LogLevel::kWarning, "platform_request_failed", {{"status", status}});
  return WithDetail(absl::UnavailableError("a part of the gateway does not answer now"),
                    {.reason = kGatewayUnavailable, .retry_after = detail.retry_after});
}

bool IsPlatformRefusal(const absl::Status& status) {
  const std::string reason = ReasonOf(status);
  return absl::IsPermissionDenied(status) || reason == kPlatformRateLimited || reason == kNoAllowedOrigin;
}

}  // namespace sallyport::token_broker
