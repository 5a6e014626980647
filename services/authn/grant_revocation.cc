// SPDX-License-Identifier: Apache-2.0
// Ending many grants at once: of a user, of a client, of a server.
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

#include "common/sql/sql.h"
#include "common/status_macros.h"
#include "services/authn/grants.h"

namespace sallyport::authn {

std::string GrantFilter::Condition(std::vector<SqlParam>& params) const {
  std::vector<std::string> terms;
  const auto add = [&](const char* column, const std::optional<std::string>& value) {
    if (value.has_value()) {
      terms.push_back(absl::StrCat(column, " = :", column));
      params.push_back({column, *value});
    }
  };
  add("subject", subject);
  add("client_id", client_id);
  add("server_uid", server_uid);
  // A filter without a field must never be one that everything fits.
  return terms.empty() ? "1 = 0" : absl::StrJoin(terms, " AND ");
}

absl::StatusOr<Ended> Grants::RevokeAll(const GrantFilter& which, absl::Time now, const MayGoOn& may_go_on) {
  SqlParams params;
  const std::string condition = which.Condition(params);
  // First: one that is redeemed before this has made a grant that is found below, and none is redeemed afterwards.
  RETURN_IF_ERROR(database_.Write([&](Transaction& tx) {
    return tx.Exec(absl::StrCat("DELETE FROM codes WHERE ", condition, " AND consumed_at IS NULL"), params).status();
  }));
  params.push_back({"now", now});
  params.push_back({"limit", kRevocationBatch});
  const std::string revoke =
      absl::StrCat("UPDATE grants SET revoked_at = :now WHERE id IN (SELECT id FROM grants WHERE ", condition,
                   " AND revoked_at IS NULL AND expires_at > :now LIMIT :limit) RETURNING id");
  return EndInBatches(database_, may_go_on, [&](Transaction& tx) -> absl::StatusOr<int> {
    ASSIGN_OR_RETURN(const Rows rows, tx.Query(revoke, params));
    std::vector<std::string> ids;
    for (const Row& row : rows) {
      ids.push_back(row.Text("id"));
    }
    RETURN_IF_ERROR(RememberEndedSessions(tx, ids, now));
    return static_cast<int>(ids.size());
  });
}

absl::StatusOr<bool> Grants::HasLive(const GrantFilter& which, absl::Time now) const {
  SqlParams params;
  const std::string condition = which.Condition(params);
  params.push_back({"now", now});
  bool found = false;
  RETURN_IF_ERROR(database_.Read([&](Transaction& tx) -> absl::Status {
    ASSIGN_OR_RETURN(const Rows rows, tx.Query(absl::StrCat("SELECT id FROM grants WHERE ", condition,
                                                            " AND revoked_at IS NULL AND expires_at > :now LIMIT 1"),
                                               params));
    found = !rows.empty();
    return absl::OkStatus();
  }));
  return found;
}

}  // namespace sallyport::authn
