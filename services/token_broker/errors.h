// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

#include "common/error.h"

// What several parts of the broker have to say, named once.
namespace sallyport::token_broker::error {

// FAILED_PRECONDITION reason credential_missing: an administrator has to enter or configure something.
inline absl::Status CredentialMissing(absl::string_view message) {
  return WithReason(absl::FailedPreconditionError(message), "credential_missing");
}
// FAILED_PRECONDITION reason credential_refused: the upstream refuses it, and no newer one would be another.
inline absl::Status CredentialRefused() {
  return WithReason(absl::FailedPreconditionError("the upstream refuses this credential, newly fetched as it is"),
                    "credential_refused");
}
// PERMISSION_DENIED reason origin_not_allowed: it was not meant to go where it is asked for.
inline absl::Status OriginNotAllowed(absl::string_view what) {
  return WithReason(absl::PermissionDeniedError(
                        absl::StrCat(what, " may not be sent to this origin; a credential-admin can allow it")),
                    "origin_not_allowed");
}
// PERMISSION_DENIED reason passport_mismatch: the passport names another server or purpose.
inline absl::Status PassportMismatch() {
  return WithReason(absl::PermissionDeniedError("the passport was made for something else"), "passport_mismatch");
}
// PERMISSION_DENIED reason link_user_mismatch: a link of another user's, or of another session's.
inline absl::Status LinkUserMismatch(absl::string_view message) {
  return WithReason(absl::PermissionDeniedError(message), "link_user_mismatch");
}
// FAILED_PRECONDITION: an app's connections outlive it.
inline absl::Status AppGone() { return absl::FailedPreconditionError("the app is no longer configured"); }
// DATA_LOSS: a record of the vault is damaged, or a newer version wrote it.
inline absl::Status DamagedConnection() { return absl::DataLossError("the stored connection does not parse"); }
// UNAVAILABLE, retry after 1 s: more waits for a thread than may.
inline absl::Status TooManyWait() {
  return WithRetryAfter(absl::UnavailableError("too many requests wait here"), absl::Seconds(1));
}
// UNAVAILABLE, retry after 1 s.
inline absl::Status ShuttingDown() { return WithRetryAfter(absl::UnavailableError("shutting down"), absl::Seconds(1)); }

}  // namespace sallyport::token_broker::error
