// SPDX-License-Identifier: Apache-2.0
#include "common/sql/sql.h"

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <limits>
#include <thread>

#include "absl/strings/str_cat.h"
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "common/status_macros.h"
#include "tests/testing/fake_clock.h"
#include "tests/testing/postgres.h"
#include "tests/testing/status_matchers.h"

namespace sallyport {
namespace {

using testing::IsOk;
using testing::StatusIs;
using testing::TestPostgres;

enum class Engine { kSqlite, kPostgresql };

// The same claims hold on both engines.
class SqlTest : public ::testing::TestWithParam<Engine> {
 protected:
  SqlTest() {
    std::string pattern = "/tmp/sallyport-sql-XXXXXX";
    directory_ = mkdtemp(pattern.data());
  }
  ~SqlTest() override {
    database_.reset();
    std::filesystem::remove_all(directory_);
  }
  void SetUp() override {
    if (GetParam() == Engine::kPostgresql) {
      ASSERT_OK_AND_ASSIGN(connection_, TestPostgres::CreateDatabase());
    }
    database_ = Open();
    ASSERT_THAT(database_->Migrate(
                    {{1,
                      {"CREATE TABLE item (id BIGINT PRIMARY KEY, name TEXT UNIQUE, data TEXT, at BIGINT)",
                       "CREATE TABLE child (id BIGINT PRIMARY KEY, item BIGINT NOT NULL REFERENCES item (id))"}}}),
                IsOk());
  }
  std::unique_ptr<Database> Open(absl::Duration timeout = absl::Seconds(5)) {
    Database::Options options;
    options.timeout = timeout;
    options.clock = &clock_;
    if (GetParam() == Engine::kPostgresql) {
      options.postgresql = connection_;
    } else {
      options.sqlite_path = directory_ + "/store.db";
    }
    auto database = Database::Open(std::move(options));
    EXPECT_THAT(database, IsOk());
    return *std::move(database);
  }
  absl::Status Exec(const std::string& sql, const SqlParams& params = {}) {
    return database_->Write([&](Transaction& tx) { return tx.Exec(sql, params).status(); });
  }
  Rows Query(const std::string& sql, const SqlParams& params = {}) {
    Rows rows;
    EXPECT_THAT(database_->Read([&](Transaction& tx) {
      auto result = tx.Query(sql, params);
      if (!result.ok()) return result.status();
      rows = *std::move(result);
      return absl::OkStatus();
    }),
                IsOk());
    return rows;
  }

  FakeClock clock_;
  std::string directory_;
  std::string connection_;
  std::unique_ptr<Database> database_;
};

INSTANTIATE_TEST_SUITE_P(Engines, SqlTest, ::testing::Values(Engine::kSqlite, Engine::kPostgresql),
                         [](const auto& engine) { return engine.param == Engine::kSqlite ? "Sqlite" : "Postgresql"; });

TEST_P(SqlTest, EveryByteValueSurvives) {
  std::string all;
  for (int i = 0; i < 256; ++i) all.push_back(static_cast<char>(i));
  ASSERT_THAT(Exec("INSERT INTO item (id, data) VALUES (:id, :data)", {{"id", 1}, {"data", Bytes{all}}}), IsOk());
  ASSERT_THAT(Exec("INSERT INTO item (id, data) VALUES (:id, :data)", {{"id", 2}, {"data", Bytes{}}}), IsOk());

  const Rows rows = Query("SELECT data FROM item ORDER BY id");

  EXPECT_EQ(rows[0].BytesAt("data"), all);
  EXPECT_EQ(rows[1].BytesAt("data"), "");
  EXPECT_FALSE(rows[1].IsNull("data"));
  EXPECT_EQ(Query("SELECT id FROM item WHERE data = :data", {{"data", Bytes{all}}})[0].Int("id"), 1);
}

TEST_P(SqlTest, NumbersTextTimesAndNullsSurvive) {
  const absl::Time time = absl::FromUnixMicros(1'800'000'000'123'456);
  const std::string text = "a'b\"c\\d:e :id \n\xc3\xa4\xf0\x9f\x9a\xaa;--";
  const int64_t numbers[] = {0, -1, std::numeric_limits<int64_t>::max(), std::numeric_limits<int64_t>::min(),
                             int64_t{1} << 40};
  for (const int64_t number : numbers) {
    ASSERT_THAT(Exec("INSERT INTO item (id, name, at) VALUES (:id, :name, :at)",
                     {{"id", number}, {"name", absl::StrCat(text, number)}, {"at", time}}),
                IsOk());
  }
  ASSERT_THAT(
      Exec("INSERT INTO item (id, name, data, at) VALUES (:id, :name, :data, :at)",
           {{"id", 7}, {"name", nullptr}, {"data", std::optional<std::string>()}, {"at", absl::InfiniteFuture()}}),
      IsOk());

  for (const int64_t number : numbers) {
    const Rows rows = Query("SELECT id, name, at FROM item WHERE id = :id", {{"id", number}});
    ASSERT_EQ(rows.size(), 1U);
    EXPECT_EQ(rows[0].Int("id"), number);
    EXPECT_EQ(rows[0].Text("name"), absl::StrCat(text, number));
    EXPECT_EQ(rows[0].TimeAt("at"), time);
  }
  const Rows rows = Query("SELECT name, data, at FROM item WHERE id = 7");
  EXPECT_TRUE(rows[0].IsNull("name"));
  EXPECT_EQ(rows[0].OptText("data"), std::nullopt);
  EXPECT_EQ(rows[0].Text("name"), "");
  EXPECT_EQ(rows[0].TimeAt("at"), absl::InfiniteFuture());
}

TEST_P(SqlTest, TextWithNulOrBrokenUtf8IsRefused) {
  for (const std::string& bad :
       {std::string("a\0b", 3), std::string("\xff"), std::string("\xc0\x80"), std::string("\xed\xa0\x80")}) {
    EXPECT_THAT(Exec("INSERT INTO item (id, name) VALUES (1, :name)", {{"name", bad}}),
                StatusIs(absl::StatusCode::kInvalidArgument, "name"));
  }
  EXPECT_TRUE(Query("SELECT id FROM item").empty());
}

TEST_P(SqlTest, AffectedRowsAreCounted) {
  ASSERT_THAT(database_->Write([](Transaction& tx) -> absl::Status {
    EXPECT_EQ(tx.Exec("INSERT INTO item (id, at) VALUES (1, 1), (2, 1), (3, 2)").value_or(-1), 3);
    EXPECT_EQ(tx.Exec("UPDATE item SET at = :to WHERE at = :from", {{"to", 5}, {"from", 1}}).value_or(-1), 2);
    EXPECT_EQ(tx.Exec("UPDATE item SET at = 9 WHERE at = 7").value_or(-1), 0);
    EXPECT_EQ(tx.Exec("INSERT INTO item (id) VALUES (1) ON CONFLICT (id) DO NOTHING").value_or(-1), 0);
    EXPECT_EQ(
        tx.Exec("INSERT INTO item (id, at) VALUES (1, 8) ON CONFLICT (id) DO UPDATE SET at = excluded.at").value_or(-1),
        1);
    EXPECT_EQ(tx.Exec("DELETE FROM item WHERE id = 99").value_or(-1), 0);
    EXPECT_EQ(tx.Exec("DELETE FROM item").value_or(-1), 3);
    return absl::OkStatus();
  }),
              IsOk());
}

TEST_P(SqlTest, InsertStoresEveryRowAndCountsTheNewOnes) {
  std::vector<std::vector<SqlValue>> rows;
  for (int i = 0; i < 1000; ++i) {
    rows.push_back({i, i % 2 == 0 ? SqlValue(nullptr) : SqlValue(absl::StrCat("n", i)), Bytes{std::string(3, '\xff')},
                    i % 3 == 0 ? SqlValue(nullptr) : SqlValue(i)});
  }
  const auto insert = [&](const std::string& on_conflict) {
    int64_t inserted = -1;
    const absl::Status status = database_->Write([&](Transaction& tx) -> absl::Status {
      ASSIGN_OR_RETURN(inserted, tx.Insert("item (id, name, data, at)", rows, on_conflict));
      return absl::OkStatus();
    });
    EXPECT_THAT(status, IsOk());
    return inserted;
  };
  EXPECT_EQ(insert(""), 1000);
  const Rows stored = Query("SELECT id, name, data, at FROM item ORDER BY id");
  ASSERT_EQ(stored.size(), 1000U);
  for (int i = 0; i < 1000; ++i) {
    const Row& row = stored[static_cast<size_t>(i)];
    EXPECT_EQ(row.OptText("name"), i % 2 == 0 ? std::nullopt : std::optional<std::string>(absl::StrCat("n", i)));
    EXPECT_EQ(row.BytesAt("data"), "\xff\xff\xff");
    EXPECT_EQ(row.OptInt("at"), i % 3 == 0 ? std::nullopt : std::optional<int64_t>(i));
  }
  rows[7][0] = 5000;
  rows[7][1] = nullptr;
  EXPECT_EQ(insert("ON CONFLICT DO NOTHING"), 1);
  EXPECT_EQ(insert("ON CONFLICT (id) DO UPDATE SET at = excluded.at"), 1000);
  rows.clear();
  EXPECT_EQ(insert(""), 0);
}

TEST_P(SqlTest, InsertThatFailsStoresNothingAndItsRowsMustBeAlike) {
  const auto insert = [this](const std::vector<std::vector<SqlValue>>& rows) {
    return database_->Write([&](Transaction& tx) { return tx.Insert("item (id, name)", rows).status(); });
  };
  EXPECT_THAT(insert({{1, "a"}, {2, "b"}, {1, "c"}}), StatusIs(absl::StatusCode::kAlreadyExists));
  EXPECT_THAT(insert({{1, "a"}, {2}}), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(insert({{1, "a"}, {2, "b\xff"}}), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(insert({{1, "a"}, {2, 3}}), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_TRUE(Query("SELECT id FROM item").empty());
}

TEST_P(SqlTest, ReturningGivesTheRowsAndHappensOnce) {
  ASSERT_THAT(Exec("INSERT INTO item (id, at) VALUES (1, 10), (2, 20)"), IsOk());
  ASSERT_THAT(database_->Write([](Transaction& tx) -> absl::Status {
    auto rows = tx.Query("UPDATE item SET at = at + :by RETURNING id, at", {{"by", 1}});
    EXPECT_THAT(rows, IsOk());
    EXPECT_EQ(rows->size(), 2U);
    auto row = tx.QueryRow("INSERT INTO item (id, at) VALUES (3, 30) RETURNING at");
    EXPECT_THAT(row, IsOk());
    EXPECT_EQ((**row).Int("at"), 30);
    return absl::OkStatus();
  }),
              IsOk());
  const Rows rows = Query("SELECT at FROM item ORDER BY id");
  ASSERT_EQ(rows.size(), 3U);
  EXPECT_EQ(rows[0].Int("at"), 11);
  EXPECT_EQ(rows[1].Int("at"), 21);
}

TEST_P(SqlTest, ExpressionsReadAsNumbers) {
  EXPECT_EQ(Query("SELECT COUNT(*) AS n FROM item")[0].Int("n"), 0);
  EXPECT_TRUE(Query("SELECT MAX(at) AS n FROM item")[0].IsNull("n"));
  ASSERT_THAT(Exec("INSERT INTO item (id, at) VALUES (1, 3000000000), (2, 4000000000)"), IsOk());
  const Row row =
      Query("SELECT COUNT(*) AS n, MAX(at) AS top, SUM(at) AS total, EXISTS (SELECT 1 FROM item) AS some FROM item")[0];
  EXPECT_EQ(row.Int("n"), 2);
  EXPECT_EQ(row.Int("top"), 4'000'000'000);
  EXPECT_EQ(row.Int("total"), 7'000'000'000);
  EXPECT_TRUE(row.Bool("some"));
}

TEST_P(SqlTest, OneParameterMayOccurSeveralTimes) {
  ASSERT_THAT(Exec("INSERT INTO item (id, at) VALUES (:n, :n)", {{"n", 4}}), IsOk());
  EXPECT_EQ(Query("SELECT id FROM item WHERE id = :n AND at = :n", {{"n", 4}}).size(), 1U);
}

TEST_P(SqlTest, ErrorsHaveTheirCodes) {
  ASSERT_THAT(Exec("INSERT INTO item (id, name) VALUES (1, 'a')"), IsOk());
  EXPECT_THAT(Exec("INSERT INTO item (id) VALUES (1)"), StatusIs(absl::StatusCode::kAlreadyExists));
  EXPECT_THAT(Exec("INSERT INTO item (id, name) VALUES (2, :n)", {{"n", "a"}}),
              StatusIs(absl::StatusCode::kAlreadyExists));
  EXPECT_THAT(Exec("INSERT INTO child (id, item) VALUES (1, 99)"), StatusIs(absl::StatusCode::kFailedPrecondition));
  EXPECT_THAT(Exec("INSERT INTO child (id, item) VALUES (1, :i)", {{"i", nullptr}}),
              StatusIs(absl::StatusCode::kFailedPrecondition));
  EXPECT_THAT(Exec("SELEKT 1"), StatusIs(absl::StatusCode::kInternal));
  EXPECT_THAT(Exec("UPDATE nowhere SET a = 1"), StatusIs(absl::StatusCode::kInternal));
  EXPECT_EQ(Query("SELECT id FROM item").size(), 1U);
}

TEST_P(SqlTest, ErrorsDoNotRepeatValues) {
  ASSERT_THAT(Exec("INSERT INTO item (id, name) VALUES (1, :n)", {{"n", "topsecret"}}), IsOk());
  for (const absl::Status& status : {Exec("INSERT INTO item (id, name) VALUES (2, :n)", {{"n", "topsecret"}}),
                                     Exec("INSERT INTO item (id, at) VALUES (3, :n)", {{"n", "topsecret"}}),
                                     Exec("INSERT INTO nowhere (id) VALUES (:n)", {{"n", "topsecret"}})}) {
    EXPECT_EQ(std::string(status.ToString()).find("topsecret"), std::string::npos) << status;
  }
}

TEST_P(SqlTest, AnErrorRollsEverythingBack) {
  EXPECT_THAT(database_->Write([](Transaction& tx) -> absl::Status {
    EXPECT_THAT(tx.Exec("INSERT INTO item (id) VALUES (1)"), IsOk());
    return absl::NotFoundError("mine");
  }),
              StatusIs(absl::StatusCode::kNotFound, "mine"));
  EXPECT_TRUE(Query("SELECT id FROM item").empty());
}

TEST_P(SqlTest, AfterAFailedStatementTheTransactionCanOnlyFail) {
  ASSERT_THAT(Exec("INSERT INTO item (id) VALUES (1)"), IsOk());
  EXPECT_THAT(database_->Write([](Transaction& tx) -> absl::Status {
    EXPECT_FALSE(tx.Exec("INSERT INTO item (id) VALUES (1)").ok());
    EXPECT_FALSE(tx.Exec("INSERT INTO item (id) VALUES (2)").ok());
    return absl::OkStatus();
  }),
              StatusIs(absl::StatusCode::kAlreadyExists));
  EXPECT_EQ(Query("SELECT id FROM item").size(), 1U);
}

TEST_P(SqlTest, ReadersCannotWriteAndSeeOneState) {
  EXPECT_FALSE(
      database_->Read([](Transaction& tx) { return tx.Exec("INSERT INTO item (id) VALUES (1)").status(); }).ok());
  ASSERT_THAT(database_->Read([&](Transaction& tx) -> absl::Status {
    EXPECT_EQ((**tx.QueryRow("SELECT COUNT(*) AS n FROM item")).Int("n"), 0);
    EXPECT_THAT(Exec("INSERT INTO item (id) VALUES (1)"), IsOk());
    EXPECT_EQ((**tx.QueryRow("SELECT COUNT(*) AS n FROM item")).Int("n"), 0);
    return absl::OkStatus();
  }),
              IsOk());
  EXPECT_EQ(Query("SELECT id FROM item").size(), 1U);
}

TEST_P(SqlTest, ConcurrentReadModifyWriteLosesNothing) {
  ASSERT_THAT(Exec("INSERT INTO item (id, at) VALUES (1, 0)"), IsOk());
  auto other = Open();  // A second replica.
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      Database& database = t % 2 == 0 ? *database_ : *other;
      for (int i = 0; i < 15; ++i) {
        EXPECT_THAT(database.Write([](Transaction& tx) -> absl::Status {
          auto row = tx.QueryRow("SELECT at FROM item WHERE id = 1");
          if (!row.ok()) return row.status();
          return tx.Exec("UPDATE item SET at = :at WHERE id = 1", {{"at", (**row).Int("at") + 1}}).status();
        }),
                    IsOk());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(Query("SELECT at FROM item")[0].Int("at"), 60);
}

TEST_P(SqlTest, AWriterThatWaitsTooLongIsAborted) {
  auto other = Open(absl::Seconds(1));
  std::atomic<int> runs{0};
  ASSERT_THAT(database_->Write([&](Transaction& tx) -> absl::Status {
    EXPECT_THAT(tx.Exec("INSERT INTO item (id) VALUES (1)"), IsOk());
    // The lock is held until the other gave up all its attempts.
    std::thread waiter([&] {
      EXPECT_THAT(other->Write([&](Transaction&) {
        ++runs;
        return absl::OkStatus();
      }),
                  StatusIs(absl::StatusCode::kAborted));
    });
    waiter.join();
    return absl::OkStatus();
  }),
              IsOk());
  EXPECT_EQ(runs, 0);
}

TEST_P(SqlTest, MigrationsAreAppliedOnceByManyReplicas) {
  const std::vector<Migration> migrations = {{1, {}}, {2, {"CREATE TABLE late (id BIGINT PRIMARY KEY)"}}};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] { EXPECT_THAT(Open()->Migrate(migrations), IsOk()); });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(Exec("INSERT INTO late (id) VALUES (1)"), IsOk());
  EXPECT_EQ(Query("SELECT version FROM schema_version").size(), 2U);
}

TEST_P(SqlTest, AFailedMigrationLeavesNothing) {
  EXPECT_FALSE(
      database_->Migrate({{1, {}}, {2, {"CREATE TABLE half (id BIGINT PRIMARY KEY)", "CREATE NONSENSE"}}}).ok());
  EXPECT_THAT(database_->Migrate({{1, {}}, {2, {"CREATE TABLE half (id BIGINT PRIMARY KEY)"}}}), IsOk());
}

TEST_P(SqlTest, AStoreNewerThanTheProgramIsRefused) {
  EXPECT_THAT(database_->Migrate({}), StatusIs(absl::StatusCode::kFailedPrecondition, "newer"));
}

TEST_P(SqlTest, MigrationsMustBeNumberedAndPortable) {
  EXPECT_THAT(database_->Migrate({{2, {}}}), StatusIs(absl::StatusCode::kInvalidArgument));
  for (const char* type : {"INTEGER", "bytea", "BLOB", "timestamp", "boolean", "SERIAL"}) {
    EXPECT_THAT(database_->Migrate({{1, {}}, {2, {absl::StrCat("CREATE TABLE t (a ", type, ")")}}}),
                StatusIs(absl::StatusCode::kInvalidArgument));
  }
}

TEST_P(SqlTest, DatabaseTimeIsTheSameForAllReplicas) {
  ASSERT_THAT(database_->Read([&](Transaction& tx) -> absl::Status {
    auto now = tx.Now();
    EXPECT_THAT(now, IsOk());
    if (GetParam() == Engine::kSqlite) {
      EXPECT_EQ(*now, clock_.Now());
    } else {
      EXPECT_LT(absl::AbsDuration(*now - SystemClock().Now()), absl::Seconds(5));
    }
    return absl::OkStatus();
  }),
              IsOk());
}

TEST(SqlOpenTest, RefusesAmbiguousOptions) {
  Database::Options neither;
  EXPECT_THAT(Database::Open(std::move(neither)), StatusIs(absl::StatusCode::kInvalidArgument));
  Database::Options with_password;
  with_password.postgresql = "host=x password=y";
  EXPECT_THAT(Database::Open(std::move(with_password)), StatusIs(absl::StatusCode::kInvalidArgument));
  Database::Options both;
  both.postgresql = "host=x";
  both.sqlite_path = "/tmp/x";
  EXPECT_THAT(Database::Open(std::move(both)), StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST(SqlOpenTest, UnreachableStoresAreUnavailable) {
  Database::Options file;
  file.sqlite_path = "/nonexistent/store.db";
  EXPECT_THAT(Database::Open(std::move(file)), StatusIs(absl::StatusCode::kUnavailable));
  Database::Options server;
  server.postgresql = "host=/nonexistent dbname=x user=x";
  EXPECT_THAT(Database::Open(std::move(server)), StatusIs(absl::StatusCode::kUnavailable));
}

TEST(SqlSqliteTest, FileIsPrivateAndIsAlsoWhenItsNameHasSpaces) {
  std::string pattern = "/tmp/sallyport sql XXXXXX";
  const std::string directory = mkdtemp(pattern.data());
  {
    Database::Options options;
    options.sqlite_path = directory + "/store.db";
    auto database = Database::Open(std::move(options));
    ASSERT_THAT(database, IsOk());
    ASSERT_THAT((*database)->Migrate({{1, {"CREATE TABLE t (a BIGINT)"}}}), IsOk());
    for (const auto& entry : std::filesystem::directory_iterator(directory)) {
      struct stat info {};
      ASSERT_EQ(stat(entry.path().c_str(), &info), 0);
      EXPECT_EQ(info.st_mode & 0777U, 0600U) << entry.path();
    }
  }
  std::filesystem::remove_all(directory);
}

// What `sqlite3 file "…"` prints: another process looks at the file.
std::string FromAnotherProcess(const std::string& path, const std::string& command) {
  const std::string line = absl::StrCat("sqlite3 '", path, "' \"", command, "\" 2>&1");
  std::FILE* pipe = popen(line.c_str(), "r");  // NOLINT(cert-env33-c): a constant program on a path of ours.
  std::string output;
  char buffer[256];
  while (pipe != nullptr && std::fgets(buffer, sizeof(buffer), pipe) != nullptr) output += buffer;
  if (pipe != nullptr) pclose(pipe);
  return output;
}

// A process that wrongly takes itself for the file's only user deletes the journal on leaving, and what we commit from
// then on goes into a file without a name.
TEST(SqlSqliteTest, ABackupByAnotherProcessLosesNothing) {
  std::string pattern = "/tmp/sallyport-sql-XXXXXX";
  const std::string directory = mkdtemp(pattern.data());
  {
    Database::Options options;
    options.sqlite_path = directory + "/store.db";
    ASSERT_OK_AND_ASSIGN(auto database, Database::Open(std::move(options)));
    ASSERT_THAT(database->Migrate({{1, {"CREATE TABLE t (a BIGINT)"}}}), IsOk());
    const auto insert = [&] {
      return database->Write([](Transaction& tx) { return tx.Exec("INSERT INTO t (a) VALUES (1)").status(); });
    };
    ASSERT_THAT(insert(), IsOk());
    ASSERT_THAT(database->Read([](Transaction& tx) { return tx.Query("SELECT a FROM t").status(); }), IsOk());

    EXPECT_EQ(FromAnotherProcess(directory + "/store.db", absl::StrCat(".backup ", directory, "/copy.db")), "");
    ASSERT_THAT(insert(), IsOk());

    EXPECT_EQ(FromAnotherProcess(directory + "/store.db", "SELECT COUNT(*) FROM t"), "2\n");
    EXPECT_EQ(FromAnotherProcess(directory + "/copy.db", "SELECT COUNT(*) FROM t"), "1\n");
  }
  std::filesystem::remove_all(directory);
}

TEST(SqlSqliteTest, AFileThatIsNoDatabaseIsDataLoss) {
  std::string pattern = "/tmp/sallyport-sql-XXXXXX";
  const std::string directory = mkdtemp(pattern.data());
  Database::Options options;
  options.sqlite_path = directory + "/store.db";
  std::FILE* file = std::fopen(options.sqlite_path.c_str(), "w");
  for (int i = 0; i < 1000; ++i) std::fputs("garbage ", file);
  std::fclose(file);
  EXPECT_THAT(Database::Open(std::move(options)), StatusIs(absl::StatusCode::kDataLoss));
  std::filesystem::remove_all(directory);
}

TEST(SqlPostgresqlTest, BrokenConnectionsAreReplaced) {
  ASSERT_OK_AND_ASSIGN(std::string connection, TestPostgres::CreateDatabase());
  Database::Options options;
  options.postgresql = connection;
  ASSERT_OK_AND_ASSIGN(auto database, Database::Open(std::move(options)));
  ASSERT_THAT(database->Migrate({{1, {"CREATE TABLE t (a BIGINT)"}}}), IsOk());
  EXPECT_THAT(database->Write([](Transaction& tx) -> absl::Status {
    if (auto inserted = tx.Exec("INSERT INTO t (a) VALUES (1)"); !inserted.ok()) return inserted.status();
    TestPostgres::DropConnections();
    return tx.Exec("INSERT INTO t (a) VALUES (2)").status();
  }),
              StatusIs(absl::StatusCode::kUnavailable));
  TestPostgres::DropConnections();
  int64_t count = -1;
  EXPECT_THAT(database->Read([&](Transaction& tx) -> absl::Status {
    auto row = tx.QueryRow("SELECT COUNT(*) AS n FROM t");
    if (row.ok()) count = (**row).Int("n");
    return row.status();
  }),
              IsOk());
  EXPECT_EQ(count, 0);
  TestPostgres::DropConnections();
  EXPECT_THAT(database->Write([](Transaction& tx) { return tx.Exec("INSERT INTO t (a) VALUES (3)").status(); }),
              IsOk());
}

}  // namespace
}  // namespace sallyport
