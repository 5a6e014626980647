// SPDX-License-Identifier: Apache-2.0
#include "services/vault/due.h"

#include <algorithm>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

#include "common/status_macros.h"

namespace sallyport::vault {
namespace due_internal {

std::string OfKind() {
  return "WHERE kind = :kind AND next_at IS NOT NULL AND next_at <= :now AND listed_until <= :now "
         "ORDER BY next_at, rid LIMIT :limit";
}

std::string OfApp() {
  return "WHERE kind = :kind AND app_uid = :app AND next_at IS NOT NULL AND next_at <= :now AND listed_until <= :now "
         "ORDER BY next_at, rid LIMIT :limit";
}

// From app to app by the index: what it costs is the number of apps, not that of records.
std::string OldestByApp() {
  return "WITH RECURSIVE app (uid) AS (SELECT (SELECT r.app_uid FROM record r WHERE r.kind = :kind AND r.next_at IS "
         "NOT NULL ORDER BY r.app_uid LIMIT 1) UNION ALL SELECT (SELECT r.app_uid FROM record r WHERE r.kind = :kind "
         "AND r.next_at IS NOT NULL AND r.app_uid > app.uid ORDER BY r.app_uid LIMIT 1) FROM app WHERE app.uid IS NOT "
         "NULL) SELECT app.uid AS uid, (SELECT o.next_at FROM record o WHERE o.kind = :kind AND o.app_uid = app.uid "
         "AND o.next_at IS NOT NULL AND o.listed_until <= :now ORDER BY o.next_at LIMIT 1) AS oldest FROM app WHERE "
         "app.uid IS NOT NULL";
}

std::string Count() {
  return "SELECT COUNT(*) AS due, MIN(d.next_at) AS oldest FROM (SELECT next_at FROM record WHERE kind = :kind AND "
         "next_at IS NOT NULL AND next_at <= :now ORDER BY next_at LIMIT :limit) AS d";
}

}  // namespace due_internal

namespace {

std::string Locked(const Transaction& tx, const DueQuery& query, std::string where) {
  // Writers of a store take turns anyway; a row that something else has locked is passed over all the same.
  return query.lock && tx.dialect() == SqlDialect::kPostgresql ? where + " FOR UPDATE SKIP LOCKED" : std::move(where);
}

bool IsOlder(const RecordRow& a, const RecordRow& b) { return std::tie(a.next_at, a.rid) < std::tie(b.next_at, b.rid); }

void KeepOldest(std::vector<RecordRow>& rows, std::vector<RecordRow> more, int limit) {
  std::move(more.begin(), more.end(), std::back_inserter(rows));
  std::sort(rows.begin(), rows.end(), IsOlder);
  if (rows.size() > static_cast<size_t>(limit)) {
    rows.resize(static_cast<size_t>(limit));
  }
}

absl::StatusOr<std::vector<RecordRow>> OfOtherApps(Transaction& tx, const DueQuery& query, const std::string& kind) {
  ASSIGN_OR_RETURN(const Rows found, tx.Query(due_internal::OldestByApp(), {{"kind", kind}, {"now", query.now}}));
  std::vector<std::pair<absl::Time, std::string>> apps;
  for (const Row& row : found) {
    const std::optional<absl::Time> oldest = row.OptTime("oldest");
    if (oldest.has_value() && *oldest <= query.now && !query.without_apps.contains(row.Text("uid"))) {
      apps.emplace_back(*oldest, row.Text("uid"));
    }
  }
  std::sort(apps.begin(), apps.end());
  std::vector<RecordRow> rows;
  for (const auto& [oldest, app] : apps) {
    if (rows.size() == static_cast<size_t>(query.limit) && rows.back().next_at < oldest) {
      break;  // All that this and the following apps have came later.
    }
    ASSIGN_OR_RETURN(std::vector<RecordRow> more,
                     QueryRecords(tx, Locked(tx, query, due_internal::OfApp()),
                                  {{"kind", kind}, {"app", app}, {"now", query.now}, {"limit", query.limit}}));
    KeepOldest(rows, std::move(more), query.limit);
  }
  return rows;
}

}  // namespace

absl::StatusOr<std::vector<RecordRow>> ListDueRecords(Transaction& tx, const DueQuery& query) {
  std::vector<RecordRow> rows;
  for (const std::string& kind : query.kinds) {
    std::vector<RecordRow> more;
    if (query.without_apps.empty()) {
      ASSIGN_OR_RETURN(more, QueryRecords(tx, Locked(tx, query, due_internal::OfKind()),
                                          {{"kind", kind}, {"now", query.now}, {"limit", query.limit}}));
    } else {
      ASSIGN_OR_RETURN(more, OfOtherApps(tx, query, kind));
    }
    KeepOldest(rows, std::move(more), query.limit);
  }
  return rows;
}

absl::Status ClaimRecords(Transaction& tx, const std::vector<RecordRow>& rows, absl::Time until) {
  if (rows.empty()) {
    return absl::OkStatus();
  }
  SqlParams params = {{"until", until}};
  std::vector<std::string> names;
  for (const RecordRow& row : rows) {
    std::string name = absl::StrCat("rid", names.size());
    names.push_back(absl::StrCat(":", name));
    params.push_back({std::move(name), row.rid});
  }
  return tx
      .Exec(absl::StrCat("UPDATE record SET listed_until = :until WHERE rid IN (", absl::StrJoin(names, ", "), ")"),
            params)
      .status();
}

absl::StatusOr<DueCount> CountDue(Transaction& tx, const std::set<std::string>& kinds, absl::Time now) {
  DueCount count;
  for (const std::string& kind : kinds) {
    ASSIGN_OR_RETURN(const auto row,
                     tx.QueryRow(due_internal::Count(), {{"kind", kind}, {"now", now}, {"limit", kMaxDueCounted}}));
    const std::optional<absl::Time> oldest = row.has_value() ? row->OptTime("oldest") : std::nullopt;
    if (!oldest.has_value()) {
      continue;
    }
    count.due = std::min(kMaxDueCounted, count.due + row->Int("due"));
    count.oldest = count.oldest == absl::InfinitePast() ? *oldest : std::min(count.oldest, *oldest);
  }
  return count;
}

}  // namespace sallyport::vault
