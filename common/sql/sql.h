// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

#include "common/clock.h"
#include "common/secret.h"

// One SQL layer for SQLite and PostgreSQL. The same statements run on both, under these rules:
//   - columns are BIGINT (numbers, booleans as 0 and 1, times in microseconds since 1970) or TEXT (UTF-8 without NUL;
//   binary as
//     base64url through Bytes); no other types, no engine-specific SQL
//   - parameters are named, ":name", and never part of the text; a name may occur several times
//   - upserts by "INSERT … ON CONFLICT (…) DO UPDATE SET x = excluded.x" or "DO NOTHING"; "RETURNING" works on both
//   - after a statement failed, its transaction can only fail (as in PostgreSQL): use ON CONFLICT instead of expecting
//   an error
namespace sallyport {

enum class SqlDialect { kSqlite, kPostgresql };

// Binary content: any bytes at all. Kept as base64url text.
struct Bytes {
  std::string value;
};

// A parameter's value: NULL, a number, text, binary or a time (InfinitePast and InfiniteFuture are kept).
class SqlValue {
 public:
  using Variant = std::variant<std::monostate, int64_t, std::string>;

  // Implicit on purpose, so that {{"a", nullptr}, {"b", 1}} reads well.
  // NOLINTBEGIN(google-explicit-constructor)
  SqlValue(std::nullptr_t) {}
  template <typename T, std::enable_if_t<std::is_integral_v<T> || std::is_enum_v<T>, int> = 0>
  SqlValue(T value) : value_(static_cast<int64_t>(value)) {}
  SqlValue(const char* text) : value_(std::string(text)) {}
  SqlValue(std::string text) : value_(std::move(text)) {}
  SqlValue(absl::string_view text) : value_(std::string(text)) {}
  SqlValue(const Bytes& bytes);
  SqlValue(absl::Time time);
  template <typename T>
  SqlValue(const std::optional<T>& value) {
    if (value) value_ = SqlValue(*value).value_;
  }
  // NOLINTEND(google-explicit-constructor)

  const Variant& variant() const { return value_; }

 private:
  Variant value_;
};

struct SqlParam {
  std::string name;  // Without the colon.
  SqlValue value;
};
using SqlParams = std::vector<SqlParam>;

// A row of a result. Reading a column the statement does not have is a bug and aborts, and so is reading text that is
// no number as one. NULL reads as 0, "", false, InfinitePast; ask IsNull or the Opt forms where that matters.
class Row {
 public:
  int64_t Int(absl::string_view column) const;
  bool Bool(absl::string_view column) const { return Int(column) != 0; }
  std::string Text(absl::string_view column) const;
  // Binary stored as Bytes. Text that is not strict base64url (a damaged row) reads as empty.
  std::string BytesAt(absl::string_view column) const;
  absl::Time TimeAt(absl::string_view column) const;
  bool IsNull(absl::string_view column) const;
  std::optional<int64_t> OptInt(absl::string_view column) const;
  std::optional<std::string> OptText(absl::string_view column) const;
  std::optional<absl::Time> OptTime(absl::string_view column) const;

 private:
  friend class Transaction;
  using Columns = std::vector<std::string>;
  const SqlValue::Variant& At(absl::string_view column) const;
  std::shared_ptr<const Columns> columns_;
  std::vector<SqlValue::Variant> values_;
};
using Rows = std::vector<Row>;

// Statements inside Database::Read or Database::Write; used by one thread, not after the function returned. Errors of
// both:
//   UNAVAILABLE         the database cannot be reached or the connection broke
//   ALREADY_EXISTS      unique violation
//   FAILED_PRECONDITION another constraint (NOT NULL, foreign key, CHECK)
//   INVALID_ARGUMENT    a text parameter with NUL or invalid UTF-8
//   RESOURCE_EXHAUSTED  disk or connections used up
//   ABORTED             lock or serialization conflict (Write retries)
//   DEADLINE_EXCEEDED   the statement ran too long
//   INTERNAL            everything else, such as wrong SQL
class Transaction {
 public:
  // Number of rows inserted, changed or deleted.
  absl::StatusOr<int64_t> Exec(const std::string& sql, const SqlParams& params = {});
  // "INSERT INTO <into> VALUES (…) <on_conflict>" for every row, which has a value for each column of `into`
  // ("t (a, b)"). The way to store many rows: a statement's text is read once for all of them on SQLite, and once for
  // some dozens on PostgreSQL, where a row more is cheaper than a round trip. Returns how many were inserted or
  // changed. INVALID_ARGUMENT if rows differ in length, or in a column's kind of value (NULL goes with both).
  absl::StatusOr<int64_t> Insert(const std::string& into, const std::vector<std::vector<SqlValue>>& rows,
                                 const std::string& on_conflict = "");
  // All rows; for SELECT and for statements with RETURNING.
  absl::StatusOr<Rows> Query(const std::string& sql, const SqlParams& params = {});
  // At most one row; more are an INTERNAL error.
  absl::StatusOr<std::optional<Row>> QueryRow(const std::string& sql, const SqlParams& params = {});
  // The time that is the same for all replicas: the database's on PostgreSQL, the process clock on SQLite.
  absl::StatusOr<absl::Time> Now();
  SqlDialect dialect() const;

 private:
  friend class Database;
  struct Session;
  Transaction(Session& session, const Clock& clock) : session_(session), clock_(clock) {}
  absl::StatusOr<int64_t> InsertOneByOne(const std::string& into, const std::vector<std::vector<SqlValue>>& rows,
                                         const std::string& on_conflict);
  absl::StatusOr<Rows> Run(const std::string& sql, const SqlParams& params, bool want_rows, int64_t* affected);

  Session& session_;
  const Clock& clock_;
  absl::Status failed_;  // The first statement that failed.
};

// Numbered from 1 without gaps; each is applied once, in one transaction, and never changed afterwards.
struct Migration {
  int version;
  std::vector<std::string> statements;
};

// A service's own database. Thread-safe.
class Database {
 public:
  struct Options {
    // Exactly one of the two. SQLite: a file, created (0600) if absent, WAL, synchronous=FULL, secure_delete.
    std::string sqlite_path;
    // libpq connection string without password.
    std::string postgresql;
    Secret password;
    // Connections (PostgreSQL) or readers (SQLite).
    int pool_size = 8;
    // Waiting for a connection or a lock; statements may take twice as long.
    absl::Duration timeout = absl::Seconds(5);
    const Clock* clock = nullptr;  // Null: system time. Must outlive the database.
  };

  // Checks the options and opens a first connection; the rest are made when needed, and again after they broke.
  static absl::StatusOr<std::unique_ptr<Database>> Open(Options options);
  ~Database();

  // Applies what is missing; several replicas may start together. FAILED_PRECONDITION if the store is newer than this
  // program.
  absl::Status Migrate(const std::vector<Migration>& migrations);

  // Runs `work` in a read-only transaction that sees one state of the store.
  absl::Status Read(const std::function<absl::Status(Transaction&)>& work);
  // Runs `work` in a transaction and commits if it returns OK. Writers of one database run one after the other, on all
  // replicas, so what `work` has read stays true until it commits: keep it short and call nobody in it. May run `work`
  // again (at most 5 times) after ABORTED, so it must set its results anew each time. UNAVAILABLE may mean that the
  // commit happened and only its confirmation was lost.
  absl::Status Write(const std::function<absl::Status(Transaction&)>& work);

  SqlDialect dialect() const;

 private:
  struct State;
  explicit Database(std::unique_ptr<State> state);
  absl::Status RunTransaction(bool write, const std::function<absl::Status(Transaction&)>& work);
  std::unique_ptr<State> state_;
};

}  // namespace sallyport
