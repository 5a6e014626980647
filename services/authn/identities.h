// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

#include "services/authn/identity.h"

namespace sallyport {
class Row;
class Transaction;
}  // namespace sallyport

// Who a subject is: groups, email and name as their newest sign-in told them. One row a subject, which holds for every
// session, grant and code of theirs at once; those rows know only whose they are.
namespace sallyport::authn {

// A sign-in of `identity` has succeeded. True if it changes what was known of the subject before: the SUBJECT
// invalidation that makes every replica look again is then remembered in the same transaction (Revocations::Wake
// delivers it).
absl::StatusOr<bool> RecordSignIn(Transaction& tx, const Identity& identity, absl::Time now);

// What a session, grant or code keeps of its user: subject, connector and issuer.
std::string EncodeOwner(const Identity& user);

// For statements on sessions, grants and codes (`rows`): the columns OwnerOf reads, and the join that gives them.
std::string OwnerColumns(absl::string_view rows);
std::string OwnerJoin(absl::string_view rows);
// The user of such a row as their newest sign-in has them. Nothing if that was at another issuer: behind the same
// subject there may be another person then. DATA_LOSS for a damaged row.
absl::StatusOr<std::optional<Identity>> OwnerOf(const Row& row);

// Forgets subjects that have no session, grant or code any more.
absl::Status PruneIdentities(Transaction& tx);

}  // namespace sallyport::authn
