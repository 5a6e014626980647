// SPDX-License-Identifier: Apache-2.0
#include "common/sql/session.h"

#include <exception>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
namespace sallyport {
namespace {

absl::Status SqliteStatus(soci::session& session, const soci::soci_error& error) {
  sqlite_api::sqlite3* const handle = SqliteHandle(session);
  const int code = handle == nullptr ? SQLITE_CANTOPEN : sqlite_api::sqlite3_extended_errcode(handle);
  // SQLite's texts name tables, columns and tokens of the statement, never values: those are always bound.
  const std::string message = absl::StrCat("sqlite: ", error.get_error_message());
  switch (code) {
    case SQLITE_CONSTRAINT_UNIQUE:
    case SQLITE_CONSTRAINT_PRIMARYKEY:
    case SQLITE_CONSTRAINT_ROWID:
      return absl::AlreadyExistsError(message);
    default:
      break;
  }
  switch (code & 0xff) {
    case SQLITE_CONSTRAINT:
      return absl::FailedPreconditionError(message);
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      return absl::AbortedError("sqlite: the database is locked");
    case SQLITE_FULL:
      return absl::ResourceExhaustedError("sqlite: the disk is full");
    case SQLITE_CANTOPEN:
    case SQLITE_IOERR:
      return absl::UnavailableError(message);
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return absl::DataLossError("sqlite: the file is damaged or no database");
    default:
      return absl::InternalError(message);
  }
}

// PostgreSQL, appendix A of its manual: error codes.
absl::Status PostgresqlStatus(soci::session& session, const soci::postgresql_soci_error& error) {
  const std::string state = error.sqlstate();
  const std::string message = absl::StrCat("postgresql: error ", state);
  if (state == "23505") return absl::AlreadyExistsError(message);
  if (absl::StartsWith(state, "23")) return absl::FailedPreconditionError(message);
  if (absl::StartsWith(state, "40") || state == "55P03") return absl::AbortedError(message);
  if (state == "57014") return absl::DeadlineExceededError("postgresql: the statement ran too long");
  if (absl::StartsWith(state, "53")) return absl::ResourceExhaustedError(message);
  if (absl::StartsWith(state, "57P") || absl::StartsWith(state, "08") || absl::StartsWith(state, "28")) {
    return absl::UnavailableError(message);
  }
  if (PQstatus(PostgresqlHandle(session)) != CONNECTION_OK) {
    return absl::UnavailableError("postgresql: the connection is lost");
  }
  // Class 42: the text of the statement is wrong; the message names its parts, not values.
  if (absl::StartsWith(state, "42")) return absl::InternalError(absl::StrCat(message, ": ", error.get_error_message()));
  return absl::InternalError(message);
}

}  // namespace

// SOCI's libraries export no type information of their backends, which UBSan's vptr check would want to see.
__attribute__((no_sanitize("vptr"))) sqlite_api::sqlite3* SqliteHandle(soci::session& session) {
  auto* backend = static_cast<soci::sqlite3_session_backend*>(session.get_backend());
  return backend == nullptr ? nullptr : backend->conn_;
}

__attribute__((no_sanitize("vptr"))) PGconn* PostgresqlHandle(soci::session& session) {
  auto* backend = static_cast<soci::postgresql_session_backend*>(session.get_backend());
  return backend == nullptr ? nullptr : backend->conn_;
}

absl::Status CatchSqlErrors(soci::session& session, SqlDialect dialect, const std::function<void()>& work) {
  try {
    work();
    return absl::OkStatus();
  } catch (const soci::postgresql_soci_error& error) {
    return PostgresqlStatus(session, error);
  } catch (const soci::soci_error& error) {
    if (dialect == SqlDialect::kSqlite) return SqliteStatus(session, error);
    if (PQstatus(PostgresqlHandle(session)) != CONNECTION_OK) {
      return absl::UnavailableError("postgresql: no connection");
    }
    return absl::InternalError(absl::StrCat("sql: ", error.get_error_message()));
  } catch (const std::exception&) {
    return absl::InternalError("sql: exception of the database library");
  }
}

}  // namespace sallyport
