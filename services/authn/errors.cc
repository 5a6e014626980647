// SPDX-License-Identifier: Apache-2.0
#include "services/authn/errors.h"

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "common/oauth/error.h"

namespace sallyport::authn {

absl::Status InvalidToken(absl::string_view reason) {
  return WithReason(WithOAuthError(absl::UnauthenticatedError("the access token was not accepted"), "invalid_token"),
                    reason);
}

absl::Status TokenError(const absl::Status& status) {
  if (status.ok()) {
    return status;
  }
  if (absl::IsNotFound(status)) {
    return InvalidToken("unknown_key");
  }
  if (absl::IsUnauthenticated(status)) {
    const std::string reason = ReasonOf(status);
    return InvalidToken(reason.empty() ? "malformed_token" : reason);
  }
  return absl::IsUnavailable(status) ? status : KeysUnavailable("the keys that verify this token cannot be had");
}

absl::Status KeysUnavailable(absl::string_view message) {
  return WithReason(absl::UnavailableError(message), "keys_unavailable");
}

absl::Status ServersUnknown() {
  return WithReason(absl::UnavailableError("the servers are not known yet"), "config_unavailable");
}
absl::Status NoSuchServer() { return absl::NotFoundError("no such server"); }
absl::Status NoSession() { return absl::UnauthenticatedError("no session"); }
absl::Status NotSignedIn() { return absl::UnauthenticatedError("nobody is signed in"); }
absl::Status ConnectorUnknown() {
  return WithReason(absl::NotFoundError("no such way to sign in"), "connector_unknown");
}
absl::Status WrongFormToken() {
  return WithReason(absl::PermissionDeniedError("the form's token does not fit"), "csrf_token");
}
absl::Status NoSuchPage(absl::string_view message) { return WithReason(absl::NotFoundError(message), "not_found"); }
absl::Status DamagedSessionKeys() { return absl::DataLossError("the stored session keys are damaged"); }

absl::Status ProviderUnavailable(absl::string_view message) {
  return WithReason(absl::UnavailableError(message), "provider_unavailable");
}

absl::Status NetworkNotAllowed(absl::string_view connector, const absl::Status& refused) {
  return WithReason(absl::UnavailableError(absl::StrCat("connector ", connector, ": ", refused.message(),
                                                        "; name its network in deployment.egress.oauthNetworks")),
                    "network_not_allowed");
}

bool IsNetworkNotAllowed(const absl::Status& status) { return ReasonOf(status) == "network_not_allowed"; }

absl::Status SignInRefused(absl::string_view reason, absl::string_view provider_error) {
  const absl::Status refused =
      WithReason(absl::UnauthenticatedError("the identity provider did not confirm the sign-in"), reason);
  return provider_error.empty() ? refused : WithOAuthError(refused, oauth::SafeErrorCode(provider_error));
}

absl::Status GrantsRemain(int ended) {
  return WithRetryAfter(
      WithReason(absl::UnavailableError(absl::StrCat(ended, " grants have ended, others remain: call again")),
                 "grants_remain"),
      absl::Seconds(1));
}

absl::Status KeyNotKnownYet(absl::Duration retry_after) {
  return WithRetryAfter(WithReason(absl::UnavailableError("the token's key is not known yet"), "unknown_key"),
                        std::max(retry_after, absl::Seconds(1)));
}

absl::Status ServiceAccountRefused() {
  return WithReason(absl::UnauthenticatedError("the service-account token was not accepted: the event "
                                               "service_account_refused in the log of authn names the check"),
                    "service_account_refused");
}

absl::Status PlatformUnknown(absl::string_view message) {
  return WithReason(absl::UnauthenticatedError(message), "platform_unknown");
}

absl::Status SubjectTokenInvalid(absl::string_view check) {
  return WithReason(absl::UnauthenticatedError(absl::StrCat("the subject token was not accepted: ", check)),
                    "subject_token_invalid");
}

absl::Status PlatformNotGranted(absl::string_view message) {
  return WithReason(absl::PermissionDeniedError(message), "platform_not_granted");
}

}  // namespace sallyport::authn
