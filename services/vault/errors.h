// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace sallyport::vault::error {

// UNAVAILABLE, reason vault_sealed, retry after 1 s.
absl::Status Sealed(absl::string_view why);
// NOT_FOUND: never existed, deleted, pruned, or not yours to know of.
absl::Status RecordNotFound();
// DATA_LOSS, reason tag_mismatch: does not open under its own identity.
absl::Status TagMismatch();
// ABORTED, reason version_conflict: expected_version is not the head.
absl::Status VersionConflict();
// ABORTED, reason wrong_generation: linked anew, unlinked or restored since the lease was given.
absl::Status WrongGeneration();
// ABORTED, reason lease_unknown: no such lease on this record.
absl::Status LeaseUnknown();
// ABORTED, reason lease_lost: another holder has taken the record over since.
absl::Status LeaseLost();
// ABORTED, reason leased: somebody holds a lease of the record.
absl::Status Leased();
// ALREADY_EXISTS: there is a record of the new name.
absl::Status NameTaken();
// ABORTED, reason side_exists: a late result arrived that this holder has not been shown; acquire again and adopt it.
absl::Status SideExists();
// PERMISSION_DENIED with a reason.
absl::Status Denied(absl::string_view message, absl::string_view reason);
// PERMISSION_DENIED, reason user_ended: a Put with a passport that was made before everything of its user was ended.
absl::Status UserEnded();
// FAILED_PRECONDITION, reason term_in_use.
absl::Status TermInUse(absl::string_view why);
// FAILED_PRECONDITION, reason adopted: what an earlier release has stored is given no origins any more.
absl::Status Adopted();
// NOT_FOUND, reason adoption_pending: no such binding, which an earlier release did not know.
absl::Status AdoptionPending();
// UNAVAILABLE, reason audit_unavailable: the decision could not be recorded in time.
absl::Status AuditUnavailable();

}  // namespace sallyport::vault::error
