// SPDX-License-Identifier: Apache-2.0
#include "services/vault/errors.h"

#include "absl/strings/str_cat.h"

#include "common/error.h"

namespace sallyport::vault::error {

absl::Status Sealed(absl::string_view why) {
  return WithRetryAfter(WithReason(absl::UnavailableError(absl::StrCat("the vault is sealed: ", why)), "vault_sealed"),
                        absl::Seconds(1));
}
absl::Status RecordNotFound() { return absl::NotFoundError("no such record or version"); }
absl::Status TagMismatch() {
  return WithReason(absl::DataLossError("the record does not open under its own identity"), "tag_mismatch");
}
absl::Status VersionConflict() {
  return WithReason(absl::AbortedError("expected_version is not the head; read the record again"), "version_conflict");
}
absl::Status WrongGeneration() {
  return WithReason(absl::AbortedError("the record has a new generation since the lease was given"),
                    "wrong_generation");
}
absl::Status LeaseUnknown() { return WithReason(absl::AbortedError("no such lease on this record"), "lease_unknown"); }
absl::Status LeaseLost() {
  return WithReason(absl::AbortedError("the lease is no longer the current one"), "lease_lost");
}
absl::Status Leased() { return WithReason(absl::AbortedError("a lease of the record is held; try again"), "leased"); }
absl::Status NameTaken() { return absl::AlreadyExistsError("there is a record of that name"); }
absl::Status SideExists() {
  return WithReason(absl::AbortedError("a late result exists that was not seen; acquire again and adopt it"),
                    "side_exists");
}
absl::Status Denied(absl::string_view message, absl::string_view reason) {
  return WithReason(absl::PermissionDeniedError(message), reason);
}
absl::Status UserEnded() {
  return Denied("the passport is from before everything of its user was ended; sign in again", "user_ended");
}
absl::Status TermInUse(absl::string_view why) {
  return WithReason(absl::FailedPreconditionError(absl::StrCat("the term cannot be destroyed: ", why)), "term_in_use");
}
absl::Status Adopted() {
  return WithReason(absl::FailedPreconditionError("everything that an earlier release stored has been adopted"),
                    "adopted");
}
absl::Status AdoptionPending() {
  return WithReason(absl::NotFoundError("no such record or version"), "adoption_pending");
}
absl::Status AuditUnavailable() {
  return WithRetryAfter(WithReason(absl::UnavailableError("the audit could not be written"), "audit_unavailable"),
                        absl::Seconds(1));
}

}  // namespace sallyport::vault::error
