// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <soci.h>
#include <string>

#include "absl/status/status.h"
#include <postgresql/soci-postgresql.h>
#include <sqlite3/soci-sqlite3.h>

#include "common/sql/sql.h"

// Inside of the SQL layer: the only headers and files that know SOCI.
namespace sallyport {

// One connection.
struct Transaction::Session {
  soci::session soci;
  SqlDialect dialect = SqlDialect::kSqlite;
};

// Runs `work` and turns what SOCI and its backends throw into a status. Messages of the engine are kept only where they
// cannot hold values.
absl::Status CatchSqlErrors(soci::session& session, SqlDialect dialect, const std::function<void()>& work);

// The engine's own handle of an open session; null if there is none.
sqlite_api::sqlite3* SqliteHandle(soci::session& session);
PGconn* PostgresqlHandle(soci::session& session);

}  // namespace sallyport
