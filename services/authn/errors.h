// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace sallyport::authn {

// 401 with oauth_error invalid_token (RFC 6750 section 3.1). One message whatever was wrong; `reason` is for logs and
// clients' developers: "expired", "wrong_audience", "unknown_key", "revoked", "missing_token".
absl::Status InvalidToken(absl::string_view reason);

// What became of verifying a token, as an answer at door one: an unknown key and everything UNAUTHENTICATED is
// InvalidToken, whatever else went wrong is UNAVAILABLE reason "keys_unavailable". Never OK for a status that is not.
absl::Status TokenError(const absl::Status& status);

// UNAVAILABLE reason "keys_unavailable".
absl::Status KeysUnavailable(absl::string_view message);

// UNAVAILABLE reason "config_unavailable": the registry has not told of the servers yet.
absl::Status ServersUnknown();
// NOT_FOUND: no server of that name or uid, or none that this caller may know of.
absl::Status NoSuchServer();
// UNAUTHENTICATED: the browser has no live session.
absl::Status NoSession();
// UNAUTHENTICATED: what was called needs a user.
absl::Status NotSignedIn();
// NOT_FOUND reason "connector_unknown".
absl::Status ConnectorUnknown();
// PERMISSION_DENIED reason "csrf_token": the form was given to another browser, or is too old.
absl::Status WrongFormToken();
// NOT_FOUND reason "not_found": no page, no document.
absl::Status NoSuchPage(absl::string_view message);
// DATA_LOSS.
absl::Status DamagedSessionKeys();

// UNAVAILABLE reason "provider_unavailable": an identity provider does not answer, or fails.
absl::Status ProviderUnavailable(absl::string_view message);
// UNAVAILABLE reason "network_not_allowed": an address of a connector lies in a network that the configuration does not
// name; the message says where to name it. `refused` is what the HTTP client said.
absl::Status NetworkNotAllowed(absl::string_view connector, const absl::Status& refused);
bool IsNetworkNotAllowed(const absl::Status& status);
// UNAUTHENTICATED: an identity provider did not confirm a sign-in. `provider_error` is its own error code
// (RFC 6749 section 5.2), empty if it gave none; it goes along as oauth_error.
absl::Status SignInRefused(absl::string_view reason, absl::string_view provider_error = "");

// UNAVAILABLE reason "grants_remain": so many grants have ended, others remain because the time was over.
absl::Status GrantsRemain(int ended);

// UNAVAILABLE reason "unknown_key": the key of a token may have been published since the issuer's keys were fetched.
// `retry_after`: until they may be fetched again.
absl::Status KeyNotKnownYet(absl::Duration retry_after);

// UNAUTHENTICATED reason "service_account_refused": a token that was to be traded for an API token. One message
// whatever was wrong: strangers must not find out which accounts administer the gateway.
absl::Status ServiceAccountRefused();

// UNAUTHENTICATED reason "platform_unknown".
absl::Status PlatformUnknown(absl::string_view message);
// UNAUTHENTICATED reason "subject_token_invalid". `check` is the one that failed, in the words of InvalidToken's
// reason: a platform is a program of the same organization, whose developers must find out.
absl::Status SubjectTokenInvalid(absl::string_view check);
// PERMISSION_DENIED reason "platform_not_granted".
absl::Status PlatformNotGranted(absl::string_view message);

}  // namespace sallyport::authn
