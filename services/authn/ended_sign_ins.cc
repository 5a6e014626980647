// SPDX-License-Identifier: Apache-2.0
#include "services/authn/ended_sign_ins.h"

#include <optional>

#include "common/sql/sql.h"
#include "common/status_macros.h"
#include "services/authn/grants.h"

namespace sallyport::authn {

absl::Status EndedSignIns::Mark(absl::string_view subject, absl::Time now) {
  return database_.Write([&](Transaction& tx) -> absl::Status {
    return tx
        .Exec(
            "INSERT INTO ended_sign_ins (subject, ended_at) VALUES (:subject, :now) ON CONFLICT (subject) DO UPDATE"
            " SET ended_at = excluded.ended_at",
            {{"subject", subject}, {"now", now}})
        .status();
  });
}

absl::StatusOr<bool> EndedSignIns::Has(absl::string_view subject, absl::Time begun_at) const {
  bool ended = false;
  RETURN_IF_ERROR(database_.Read([&](Transaction& tx) -> absl::Status {
    ASSIGN_OR_RETURN(
        const std::optional<Row> row,
        tx.QueryRow("SELECT ended_at FROM ended_sign_ins WHERE subject = :subject", {{"subject", subject}}));
    ended = row.has_value() && begun_at <= row->TimeAt("ended_at");
    return absl::OkStatus();
  }));
  return ended;
}

absl::Status EndedSignIns::Clear(absl::string_view subject) {
  return database_.Write([&](Transaction& tx) -> absl::Status {
    return tx.Exec("DELETE FROM ended_sign_ins WHERE subject = :subject", {{"subject", subject}}).status();
  });
}

absl::StatusOr<int> EndedSignIns::Prune(absl::Time now) {
  int64_t pruned = 0;
  RETURN_IF_ERROR(database_.Write([&](Transaction& tx) -> absl::Status {
    ASSIGN_OR_RETURN(pruned,
                     tx.Exec("DELETE FROM ended_sign_ins WHERE ended_at <= :end", {{"end", now - kRefreshAbsolute}}));
    return absl::OkStatus();
  }));
  return static_cast<int>(pruned);
}

}  // namespace sallyport::authn
