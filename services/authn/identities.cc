// SPDX-License-Identifier: Apache-2.0
#include "services/authn/identities.h"

#include <set>
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/sql/sql.h"
#include "common/status_macros.h"
#include "services/authn/identity_codec.h"
#include "services/authn/revocations.h"

namespace sallyport::authn {
namespace {

bool SaysTheSame(const Identity& a, const Identity& b) {
  const std::set<std::string> groups_a(a.groups.begin(), a.groups.end());
  const std::set<std::string> groups_b(b.groups.begin(), b.groups.end());
  return a.connector == b.connector && a.issuer == b.issuer && a.email == b.email &&
         a.email_verified == b.email_verified && a.name == b.name && a.groups_overage == b.groups_overage &&
         groups_a == groups_b;
}

}  // namespace

absl::StatusOr<bool> RecordSignIn(Transaction& tx, const Identity& identity, absl::Time now) {
  ASSIGN_OR_RETURN(const std::optional<Row> row, tx.QueryRow("SELECT identity FROM identities WHERE subject = :subject",
                                                             {{"subject", identity.subject}}));
  RETURN_IF_ERROR(tx.Exec("INSERT INTO identities (subject, identity, signed_in_at) VALUES (:subject, :identity, :now)"
                          " ON CONFLICT (subject) DO UPDATE SET identity = excluded.identity, signed_in_at ="
                          " excluded.signed_in_at",
                          {{"subject", identity.subject}, {"identity", EncodeIdentity(identity)}, {"now", now}})
                      .status());
  if (!row.has_value()) {
    return false;
  }
  // A damaged row is one that says something else.
  const absl::StatusOr<Identity> before = DecodeIdentity(row->Text("identity"));
  if (before.ok() && SaysTheSame(*before, identity)) {
    return false;
  }
  RETURN_IF_ERROR(RememberChangedSubject(tx, identity.subject, now));
  return true;
}

std::string EncodeOwner(const Identity& user) {
  Identity owner;
  owner.subject = user.subject;
  owner.connector = user.connector;
  owner.issuer = user.issuer;
  return EncodeIdentity(owner);
}

std::string OwnerColumns(absl::string_view rows) {
  return absl::StrCat(rows, ".identity AS owner, identities.identity AS newest");
}

std::string OwnerJoin(absl::string_view rows) {
  return absl::StrCat(" LEFT JOIN identities ON identities.subject = ", rows, ".subject ");
}

absl::StatusOr<std::optional<Identity>> OwnerOf(const Row& row) {
  ASSIGN_OR_RETURN(const Identity owner, DecodeIdentity(row.Text("owner")));
  if (row.IsNull("newest")) {
    return std::optional<Identity>();
  }
  ASSIGN_OR_RETURN(Identity newest, DecodeIdentity(row.Text("newest")));
  if (newest.subject != owner.subject || newest.connector != owner.connector || newest.issuer != owner.issuer) {
    return std::optional<Identity>();
  }
  return std::make_optional(std::move(newest));
}

absl::Status PruneIdentities(Transaction& tx) {
  return tx
      .Exec(
          "DELETE FROM identities WHERE NOT EXISTS (SELECT 1 FROM sessions WHERE sessions.subject = identities.subject)"
          " AND NOT EXISTS (SELECT 1 FROM grants WHERE grants.subject = identities.subject)"
          " AND NOT EXISTS (SELECT 1 FROM codes WHERE codes.subject = identities.subject)")
      .status();
}

}  // namespace sallyport::authn
