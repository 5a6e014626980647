// SPDX-License-Identifier: Apache-2.0
#include "tests/testing/postgres.h"

#include <atomic>
#include <csignal>
#include <filesystem>
#include <memory>
#include <pwd.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include <libpq-fe.h>

#include "tests/testing/process.h"

namespace sallyport::testing {
namespace {

constexpr char kUser[] = "postgres";

std::string BinDirectory() {
  for (const char* directory :
       {"/usr/lib/postgresql/15/bin", "/usr/lib/postgresql/16/bin", "/usr/lib/postgresql/17/bin"}) {
    if (access(absl::StrCat(directory, "/initdb").c_str(), X_OK) == 0) return directory;
  }
  return "";
}

struct ConnectionCloser {
  void operator()(PGconn* connection) const { PQfinish(connection); }
};
using Connection = std::unique_ptr<PGconn, ConnectionCloser>;

class Server {
 public:
  static Server& Get() {
    static Server server;  // Its destructor stops the program.
    return server;
  }
  const absl::Status& status() const { return status_; }
  std::string ConnectionString(const std::string& database) const {
    return absl::StrCat("host=", directory_, " user=", kUser, " dbname=", database);
  }
  absl::Status Execute(const std::string& sql) {
    Connection connection(PQconnectdb(ConnectionString("postgres").c_str()));
    if (PQstatus(connection.get()) != CONNECTION_OK) return absl::UnavailableError(PQerrorMessage(connection.get()));
    PGresult* result = PQexec(connection.get(), sql.c_str());
    const ExecStatusType code = PQresultStatus(result);
    const std::string message = PQresultErrorMessage(result);
    PQclear(result);
    return code == PGRES_COMMAND_OK || code == PGRES_TUPLES_OK ? absl::OkStatus() : absl::InternalError(message);
  }

  ~Server() {
    Terminate(pid_, SIGQUIT);  // Immediate: nothing in it is worth a checkpoint.
    RemoveTree(directory_);
  }

 private:
  Server() { status_ = Start(); }

  absl::Status Start() {
    const std::string bin = BinDirectory();
    if (bin.empty() || (geteuid() == 0 && getpwnam(kUser) == nullptr)) {
      return absl::FailedPreconditionError(
          "the PostgreSQL server (/usr/lib/postgresql/*/bin/initdb, account postgres) is missing: run tools/setup");
    }
    directory_ = MakeServerDirectory("pg", kUser);
    if (directory_.empty()) return absl::InternalError("no temporary directory for PostgreSQL");
    const std::string log = directory_ + "/log";
    const std::string data = directory_ + "/data";
    auto initdb =
        Spawn({bin + "/initdb", "-D", data, "-U", kUser, "-A", "trust", "-E", "UTF8", "--locale=C", "-N"}, log, kUser);
    if (!initdb.ok()) return initdb.status();
    auto code = WaitForExit(*initdb, absl::Minutes(5));
    if (!code.ok()) return code.status();
    if (*code != 0) return absl::InternalError(absl::StrCat("initdb failed, see ", log));
    auto server = Spawn({bin + "/postgres", "-D", data, "-k", directory_, "-c", "listen_addresses=", "-c", "fsync=off",
                         "-c", "max_connections=60", "-c", "shared_buffers=16MB"},
                        log, kUser);
    if (!server.ok()) return server.status();
    pid_ = *server;
    const absl::Time deadline = absl::Now() + absl::Minutes(2);
    while (absl::Now() < deadline) {
      if (PQping(ConnectionString("postgres").c_str()) == PQPING_OK) return absl::OkStatus();
      absl::SleepFor(absl::Milliseconds(20));
    }
    return absl::DeadlineExceededError("PostgreSQL did not start");
  }

  std::string directory_;
  pid_t pid_ = -1;
  absl::Status status_;
};

}  // namespace

absl::Status TestPostgres::Start() { return Server::Get().status(); }

absl::StatusOr<std::string> TestPostgres::CreateDatabase() {
  static std::atomic<int> next{1};
  Server& server = Server::Get();
  if (!server.status().ok()) return server.status();
  const std::string name = absl::StrCat("test", next++);
  if (absl::Status status = server.Execute(absl::StrCat("CREATE DATABASE ", name)); !status.ok()) return status;
  return server.ConnectionString(name);
}

void TestPostgres::DropConnections() {
  Server::Get()
      .Execute(
          "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname LIKE 'test%' AND pid <> "
          "pg_backend_pid()")
      .IgnoreError();
}

}  // namespace sallyport::testing
