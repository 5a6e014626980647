// SPDX-License-Identifier: Apache-2.0
#include "services/vault/ended_owners.h"

#include "common/status_macros.h"

namespace sallyport::vault {
namespace {

// Longer than any passport lives, whatever the clocks of authn and the store say.
constexpr absl::Duration kKept = absl::Hours(1);

}  // namespace

absl::Status NoteEnded(Transaction& tx, const Owner& owner, absl::Time ended_at, absl::Time now) {
  RETURN_IF_ERROR(tx.Exec("DELETE FROM ended_owner WHERE noted_at < :before", {{"before", now - kKept}}).status());
  return tx
      .Exec(
          "INSERT INTO ended_owner (owner_id, ended_at, noted_at) VALUES (:owner, :ended_at, :now) ON CONFLICT "
          "(owner_id) DO UPDATE SET ended_at = CASE WHEN excluded.ended_at > ended_owner.ended_at THEN "
          "excluded.ended_at ELSE ended_owner.ended_at END, noted_at = excluded.noted_at",
          {{"owner", owner.id}, {"ended_at", ended_at}, {"now", now}})
      .status();
}

absl::StatusOr<bool> IsOfBeforeEnd(Transaction& tx, const Owner& owner, const std::optional<Passport>& passport) {
  if (owner.type != "user" || !passport.has_value() || passport->subject != owner.id) {
    return false;
  }
  ASSIGN_OR_RETURN(const auto row,
                   tx.QueryRow("SELECT ended_at FROM ended_owner WHERE owner_id = :owner", {{"owner", owner.id}}));
  return row.has_value() && passport->issued_at <= row->TimeAt("ended_at");
}

}  // namespace sallyport::vault
