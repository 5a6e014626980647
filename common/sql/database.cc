// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <fcntl.h>
#include <thread>
#include <unistd.h>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

#include "common/backoff.h"
#include "common/crypto/random.h"
#include "common/metrics.h"
#include "common/mutex.h"
#include "common/sql/session.h"
#include "common/sql/sql.h"
#include "common/status_macros.h"

namespace sallyport {
namespace {

constexpr int kMaxAttempts = 5;
// Key of the advisory lock that makes writers take turns. Any number, but the same in every replica.
constexpr char kWriterLock[] = "SELECT pg_advisory_xact_lock(7308332182941)";

void Execute(soci::session& session, const std::string& sql) {
  soci::statement statement(session);
  statement.alloc();
  statement.prepare(sql, soci::details::st_one_time_query);
  statement.define_and_bind();
  statement.execute(true);
}

// libpq connection strings: values in quotes, with quotes and backslashes escaped.
std::string QuoteConnectionValue(absl::string_view value) {
  std::string quoted = "'";
  for (const char c : value) {
    if (c == '\'' || c == '\\') quoted.push_back('\\');
    quoted.push_back(c);
  }
  return quoted + "'";
}

constexpr HistogramInfo kWait = {
    .name = "sallyport_sql_wait_seconds",
    .help = "Time a transaction waited for its connection and its locks before its first statement",
    .unit = "seconds",
    .labels = {{"kind", "read, write"}},
    .rise =
        "write: writers of a database take turns, and one of them is slow, or the disk is. read: all connections are "
        "in use",
    .action = "Look at the disk or the PostgreSQL server; for read raise `poolSize` if the server has connections left",
};
constexpr CounterInfo kRetries = {
    .name = "sallyport_sql_retries_total",
    .help = "Transactions that were run again because of a lock or serialization conflict",
    .unit = "transactions",
    .rise = "Replicas get in each other's way, or another program holds locks on the database",
    .action = "Look for long transactions in the database: backups, migrations, people",
};

void DropNotice(void* /*unused*/, const char* /*message*/) {}

absl::Status CreateFile(const std::string& path) {
  // Made here because SQLite would make it readable for everybody; its journal files take over the mode. One that is
  // there is not opened: closing any descriptor of a file drops all POSIX locks this process holds on it, and another
  // process (a backup) would then take itself for the only user and delete the journal under our connections.
  const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd >= 0) {
    close(fd);
  } else if (errno != EEXIST) {
    return absl::UnavailableError(absl::StrCat("cannot open database ", path, ": ", strerror(errno)));
  }
  return absl::OkStatus();
}

}  // namespace

struct Database::State {
  using Session = Transaction::Session;

  explicit State(Options given) : options(std::move(given)) {
    dialect = options.sqlite_path.empty() ? SqlDialect::kPostgresql : SqlDialect::kSqlite;
    clock = options.clock != nullptr ? options.clock : &system_clock;
  }

  // Connections of one kind. Those in use stay out of it; whoever leaves one behind (because it may be broken) just
  // forgets it.
  struct Pool {
    Mutex mu;
    std::condition_variable_any freed;
    int free_slots = 0;
    std::vector<std::unique_ptr<Session>> idle;
  };

  absl::StatusOr<std::unique_ptr<Session>> Connect(bool write) {
    auto session = std::make_unique<Session>();
    session->dialect = dialect;
    if (dialect == SqlDialect::kSqlite) {
      RETURN_IF_ERROR(ConnectSqlite(*session, write));
    } else {
      RETURN_IF_ERROR(ConnectPostgresql(*session));
    }
    return session;
  }

  absl::Status ConnectSqlite(Session& session, bool write) {
    RETURN_IF_ERROR(CreateFile(options.sqlite_path));
    return CatchSqlErrors(session.soci, dialect, [&] {
      session.soci.open(*soci::factory_sqlite3(),
                        absl::StrCat("db=\"", options.sqlite_path,
                                     "\" timeout=", std::max<int64_t>(1, options.timeout / absl::Seconds(1))));
      Execute(session.soci, "PRAGMA journal_mode = WAL");
      Execute(session.soci, "PRAGMA synchronous = FULL");
      Execute(session.soci, "PRAGMA foreign_keys = ON");
      Execute(session.soci, "PRAGMA secure_delete = ON");
      Execute(session.soci, "PRAGMA trusted_schema = OFF");
      if (!write) Execute(session.soci, "PRAGMA query_only = ON");
    });
  }

  absl::Status ConnectPostgresql(Session& session) {
    std::string connection =
        absl::StrCat(options.postgresql, " connect_timeout=", std::max<int64_t>(2, options.timeout / absl::Seconds(1)),
                     " application_name=sallyport client_encoding=UTF8");
    if (!options.password.empty()) {
      absl::StrAppend(&connection, " password=", QuoteConnectionValue(options.password.Expose()));
    }
    const int64_t lock_ms = options.timeout / absl::Milliseconds(1);
    return CatchSqlErrors(session.soci, dialect, [&] {
      session.soci.open(*soci::factory_postgresql(), connection);
      PQsetNoticeProcessor(PostgresqlHandle(session.soci), DropNotice, nullptr);
      Execute(session.soci, absl::StrCat("SET lock_timeout = ", lock_ms));
      Execute(session.soci, absl::StrCat("SET statement_timeout = ", 2 * lock_ms));
      // A replica that hangs in a transaction must not keep the writers' lock.
      Execute(session.soci, "SET idle_in_transaction_session_timeout = 30000");
    });
  }

  absl::StatusOr<std::unique_ptr<Session>> CheckOut(bool write) {
    Pool& pool = write ? writers : readers;
    {
      MutexLock lock(pool.mu);
      const auto deadline = std::chrono::steady_clock::now() + absl::ToChronoMicroseconds(options.timeout);
      while (pool.free_slots == 0) {
        if (pool.freed.wait_until(pool.mu, deadline) == std::cv_status::timeout && pool.free_slots == 0) {
          return write ? absl::AbortedError("sql: other writers take too long")
                       : absl::UnavailableError("sql: all connections are busy");
        }
      }
      --pool.free_slots;
      if (!pool.idle.empty()) {
        auto session = std::move(pool.idle.back());
        pool.idle.pop_back();
        return session;
      }
    }
    auto session = Connect(write);
    if (!session.ok()) CheckIn(write, nullptr);
    return session;
  }

  // Null: the connection was not fit to be kept.
  void CheckIn(bool write, std::unique_ptr<Session> session) {
    Pool& pool = write ? writers : readers;
    {
      MutexLock lock(pool.mu);
      ++pool.free_slots;
      if (session != nullptr) pool.idle.push_back(std::move(session));
    }
    pool.freed.notify_one();
  }

  void ForgetIdle(bool write) {
    Pool& pool = write ? writers : readers;
    std::vector<std::unique_ptr<Session>> stale;
    MutexLock lock(pool.mu);
    stale.swap(pool.idle);
  }

  absl::Status Begin(Session& session, bool write) {
    return CatchSqlErrors(session.soci, dialect, [&] {
      if (dialect == SqlDialect::kSqlite) {
        Execute(session.soci, write ? "BEGIN IMMEDIATE" : "BEGIN");
      } else if (write) {
        // Statements after the lock see everything earlier writers committed, because READ COMMITTED takes a new
        // snapshot for each.
        Execute(session.soci, "BEGIN ISOLATION LEVEL READ COMMITTED");
        Execute(session.soci, kWriterLock);
      } else {
        Execute(session.soci, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY");
      }
    });
  }

  absl::Status End(Session& session, bool commit) {
    return CatchSqlErrors(session.soci, dialect, [&] { Execute(session.soci, commit ? "COMMIT" : "ROLLBACK"); });
  }

  prometheus::Histogram& read_wait = MetricHistogram(kWait, {{"kind", "read"}});
  prometheus::Histogram& write_wait = MetricHistogram(kWait, {{"kind", "write"}});
  prometheus::Counter& retries = MetricCounter(kRetries);
  Options options;
  SqlDialect dialect;
  SystemClock system_clock;
  const Clock* clock;
  Pool readers;
  Pool writers;
};

Database::Database(std::unique_ptr<State> state) : state_(std::move(state)) {}
Database::~Database() = default;

SqlDialect Database::dialect() const { return state_->dialect; }

absl::StatusOr<std::unique_ptr<Database>> Database::Open(Options options) {
  if (options.sqlite_path.empty() == options.postgresql.empty()) {
    return absl::InvalidArgumentError("database: name either a SQLite file or a PostgreSQL connection");
  }
  if (options.sqlite_path.find('"') != std::string::npos) {
    return absl::InvalidArgumentError("database: the file's name must not contain quotes");
  }
  if (absl::StrContains(options.postgresql, "://") || absl::StrContains(options.postgresql, "password")) {
    return absl::InvalidArgumentError("database: use the form \"host=… dbname=…\", and password_file for the password");
  }
  auto state = std::make_unique<State>(std::move(options));
  // Writers take turns anyway; a second connection lets the next one wait in PostgreSQL instead of here.
  state->writers.free_slots = state->dialect == SqlDialect::kSqlite ? 1 : 2;
  state->readers.free_slots = std::max(1, state->options.pool_size - (state->dialect == SqlDialect::kSqlite ? 0 : 2));
  ASSIGN_OR_RETURN(auto session, state->CheckOut(true));
  state->CheckIn(true, std::move(session));
  return std::unique_ptr<Database>(new Database(std::move(state)));
}

absl::Status Database::RunTransaction(bool write, const std::function<absl::Status(Transaction&)>& work) {
  Backoff backoff(absl::Milliseconds(5), absl::Milliseconds(200));
  for (int attempt = 1;; ++attempt) {
    const auto asked = std::chrono::steady_clock::now();
    const auto observe_wait = [&] {
      const std::chrono::duration<double> waited = std::chrono::steady_clock::now() - asked;
      (write ? state_->write_wait : state_->read_wait).Observe(waited.count());
    };
    auto session = state_->CheckOut(write);
    if (!session.ok()) {
      observe_wait();
      return session.status();
    }
    absl::Status status = state_->Begin(**session, write);
    if (absl::IsUnavailable(status)) {
      // The connection broke while it lay idle, and probably so did the others. Nothing has happened yet: once more,
      // with a new one.
      *session = nullptr;
      state_->ForgetIdle(write);
      session = state_->Connect(write);
      status = session.ok() ? state_->Begin(**session, write) : session.status();
    }
    observe_wait();
    bool retry = absl::IsAborted(status);
    bool keep = status.ok();
    if (status.ok()) {
      Transaction transaction(**session, *state_->clock);
      status = work(transaction);
      if (status.ok()) status = transaction.failed_;
      retry = absl::IsAborted(transaction.failed_);
      if (status.ok()) {
        status = state_->End(**session, true);
        retry = absl::IsAborted(status);
      }
      // After a failed COMMIT there may be nothing to roll back: then the connection is not kept, which is as good.
      keep = status.ok() || state_->End(**session, false).ok();
    }
    state_->CheckIn(write, keep && session.ok() ? *std::move(session) : nullptr);
    if (status.ok() || !retry || !write || attempt == kMaxAttempts) return status;
    state_->retries.Increment();
    std::this_thread::sleep_for(absl::ToChronoMicroseconds(backoff.Next(RandomUnit())));
  }
}

absl::Status Database::Read(const std::function<absl::Status(Transaction&)>& work) {
  return RunTransaction(false, work);
}
absl::Status Database::Write(const std::function<absl::Status(Transaction&)>& work) {
  return RunTransaction(true, work);
}

namespace {

// Types that the engines understand differently, or that SOCI reads wrongly (INTEGER as 32 bits).
absl::Status CheckTypes(const std::string& statement) {
  const std::string upper = absl::AsciiStrToUpper(statement);
  const std::vector<std::string> words = absl::StrSplit(upper, absl::ByAnyChar(" \t\n,()"), absl::SkipEmpty());
  for (const char* type : {"INT", "INTEGER", "SERIAL", "BIGSERIAL", "BLOB", "BYTEA", "BOOLEAN", "TIMESTAMP",
                           "TIMESTAMPTZ", "VARCHAR", "REAL", "AUTOINCREMENT", "JSONB"}) {
    if (std::find(words.begin(), words.end(), type) != words.end()) {
      return absl::InvalidArgumentError(absl::StrCat("migration: columns are BIGINT or TEXT, not ", type));
    }
  }
  return absl::OkStatus();
}

absl::Status ApplyMissing(Transaction& tx, const std::vector<Migration>& migrations, bool& done) {
  ASSIGN_OR_RETURN(const auto row, tx.QueryRow("SELECT COALESCE(MAX(version), 0) AS version FROM schema_version"));
  const int64_t current = row ? row->Int("version") : 0;
  const auto known = static_cast<int64_t>(migrations.size());
  if (current > known) {
    return absl::FailedPreconditionError(absl::StrCat("database: its schema has version ", current,
                                                      ", this program knows ", known, "; run the newer program"));
  }
  done = current == known;
  if (done) return absl::OkStatus();
  const Migration& next = migrations[static_cast<size_t>(current)];
  for (const std::string& statement : next.statements) RETURN_IF_ERROR(tx.Exec(statement).status());
  ASSIGN_OR_RETURN(const absl::Time now, tx.Now());
  return tx
      .Exec("INSERT INTO schema_version (version, applied_at) VALUES (:version, :applied_at)",
            {{"version", next.version}, {"applied_at", now}})
      .status();
}

}  // namespace

absl::Status Database::Migrate(const std::vector<Migration>& migrations) {
  for (size_t i = 0; i < migrations.size(); ++i) {
    if (migrations[i].version != static_cast<int>(i) + 1) {
      return absl::InvalidArgumentError("migration: versions must be 1, 2, 3, …");
    }
    for (const std::string& statement : migrations[i].statements) RETURN_IF_ERROR(CheckTypes(statement));
  }
  RETURN_IF_ERROR(Write([](Transaction& tx) {
    return tx.Exec("CREATE TABLE IF NOT EXISTS schema_version (version BIGINT PRIMARY KEY, applied_at BIGINT NOT NULL)")
        .status();
  }));
  // Each in a transaction of its own. Write makes replicas take turns, and each looks anew at what is missing.
  for (bool done = false; !done;) {
    RETURN_IF_ERROR(Write([&](Transaction& tx) { return ApplyMissing(tx, migrations, done); }));
  }
  return absl::OkStatus();
}

}  // namespace sallyport
