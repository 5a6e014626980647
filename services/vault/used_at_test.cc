// SPDX-License-Identifier: Apache-2.0
// When somebody last used a connection of theirs, and stores of the release before; on both engines.
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include <gtest/gtest.h>

#include "common/proto_time.h"
#include "services/vault/due.h"
#include "services/vault/store.h"
#include "services/vault/testing/harness.h"

namespace sallyport::vault {
namespace {

using ::sallyport::testing::IsOk;
using testing::Broker;
using testing::Connection;
using testing::Harness;
using testing::kUser;
using testing::Service;

class UsedAtTest : public ::testing::TestWithParam<SqlDialect> {
 protected:
  void SetUp() override {
    if (GetParam() == SqlDialect::kPostgresql) {
      ASSERT_THAT(sallyport::testing::TestPostgres::Start(), IsOk());
    }
    harness_ = std::make_unique<Harness>(GetParam());
    ASSERT_THAT(harness_->Put(Broker(), Connection(), "tokens"), IsOk());
    linked_at_ = UsedAt();
    SetUsedAt(absl::InfinitePast());
  }
  absl::Time UsedAt() {
    return harness_->Query("SELECT used_at FROM record WHERE kind = 'connection'")[0].TimeAt("used_at");
  }
  void SetUsedAt(absl::Time at) {
    harness_->Sql("UPDATE record SET used_at = :at WHERE kind = 'connection'", {{"at", at}});
  }
  absl::Time Now() {
    absl::Time now;
    EXPECT_THAT(harness_->database->Read([&](Transaction& tx) -> absl::Status {
      const auto read = tx.Now();
      if (read.ok()) now = *read;
      return read.status();
    }),
                IsOk());
    return now;
  }
  std::unique_ptr<Harness> harness_;
  absl::Time linked_at_;
};

INSTANTIATE_TEST_SUITE_P(Engines, UsedAtTest, ::testing::Values(SqlDialect::kSqlite, SqlDialect::kPostgresql),
                         [](const auto& engine) {
                           return engine.param == SqlDialect::kSqlite ? "Sqlite" : "Postgresql";
                         });

TEST_P(UsedAtTest, ReadingAndLeasingByTheOwnerCount) {
  ASSERT_EQ(harness_->Payload(Broker(), Connection()), "tokens");
  EXPECT_LT(absl::AbsDuration(UsedAt() - Now()), absl::Minutes(5));
  EXPECT_TRUE(harness_->Get(Broker(), Connection())->metadata().has_used_at());

  SetUsedAt(Now() - absl::Hours(25));
  const auto lease = harness_->Acquire(Connection());
  EXPECT_LT(absl::AbsDuration(UsedAt() - Now()), absl::Minutes(5));
  ASSERT_THAT(harness_->PutLeased(Connection(), lease->lease().id(), "renewed"), IsOk());
  EXPECT_LT(absl::AbsDuration(UsedAt() - Now()), absl::Minutes(5));

  SetUsedAt(absl::InfinitePast());
  ASSERT_THAT(harness_->Get(Broker(kUser, Passport::Purpose::kPlatform), Connection()), IsOk());
  EXPECT_NE(UsedAt(), absl::InfinitePast()) << "a platform acts for them";
}

TEST_P(UsedAtTest, ItCountsFromTheLinkOn) { EXPECT_LT(absl::AbsDuration(linked_at_ - Now()), absl::Minutes(5)); }

TEST_P(UsedAtTest, SealingTheSameConnectionAnewIsNoUse) {
  const absl::Time noted = absl::FromUnixMicros(absl::ToUnixMicros(Now() - absl::Hours(23)));
  SetUsedAt(noted);
  v1::PutRequest put;
  *put.mutable_record() = Connection();
  put.set_payload("tokens, sealed anew");
  put.set_keep_generation(true);
  ASSERT_THAT(harness_->vault->Put(Broker(), put), IsOk());
  EXPECT_EQ(UsedAt(), noted);
}

TEST_P(UsedAtTest, LookingAtOnesAccountsIsNoUse) {
  ASSERT_THAT(harness_->Get(Broker(kUser, Passport::Purpose::kApi), Connection()), IsOk());
  ASSERT_THAT(harness_->Get(Broker(kUser, Passport::Purpose::kLink), Connection()), IsOk());
  EXPECT_EQ(UsedAt(), absl::InfinitePast());
}

TEST_P(UsedAtTest, IsWrittenOnceADay) {
  const absl::Time noted = absl::FromUnixMicros(absl::ToUnixMicros(Now() - absl::Hours(23)));
  SetUsedAt(noted);
  ASSERT_EQ(harness_->Payload(Broker(), Connection()), "tokens");
  ASSERT_THAT(harness_->Acquire(Connection()), IsOk());
  EXPECT_EQ(UsedAt(), noted);
}

TEST_P(UsedAtTest, MaintenanceAndListsAreNoUse) {
  harness_->Sql("UPDATE record SET next_at = 1 WHERE kind = 'connection'");
  v1::AcquireLeaseRequest acquire;
  *acquire.mutable_record() = Connection();
  acquire.set_maintenance(true);
  const auto lease = harness_->vault->AcquireLease(Service("token_broker"), acquire);
  ASSERT_THAT(harness_->PutLeased(Connection(), lease->lease().id(), "renewed"), IsOk());
  v1::ListRequest list;
  list.set_owner_type(v1::USER);
  list.set_owner_id(kUser);
  ASSERT_EQ(harness_->vault->List(Broker(), list)->records_size(), 1);
  EXPECT_FALSE(harness_->Get(Broker("corp:eve"), Connection()).ok());
  EXPECT_EQ(UsedAt(), absl::InfinitePast());
}

TEST_P(UsedAtTest, AStoreThatCannotNoteItReadsAllTheSame) {
  if (GetParam() != SqlDialect::kSqlite) GTEST_SKIP() << "the trigger is SQLite's";
  harness_->Sql(
      "CREATE TRIGGER no_use BEFORE UPDATE OF used_at ON record BEGIN SELECT RAISE(ABORT, 'cannot be written'); END");
  EXPECT_EQ(harness_->Payload(Broker(), Connection()), "tokens");
  EXPECT_EQ(UsedAt(), absl::InfinitePast());
}

TEST_P(UsedAtTest, ALinkOfTheSameAppAnewKeepsItAndDeletionForgetsIt) {
  ASSERT_EQ(harness_->Payload(Broker(), Connection()), "tokens");
  ASSERT_THAT(harness_->Put(Broker(), Connection(), "linked anew"), IsOk());
  EXPECT_NE(UsedAt(), absl::InfinitePast());
  ASSERT_THAT(harness_->Delete(Broker(), Connection()), IsOk());
  EXPECT_EQ(UsedAt(), absl::InfinitePast());
}

// What the release before has stored, as its statements did.
class MigrationTest : public ::testing::TestWithParam<SqlDialect> {};
INSTANTIATE_TEST_SUITE_P(Engines, MigrationTest, ::testing::Values(SqlDialect::kSqlite, SqlDialect::kPostgresql),
                         [](const auto& engine) {
                           return engine.param == SqlDialect::kSqlite ? "Sqlite" : "Postgresql";
                         });

TEST_P(MigrationTest, RecordsOfTheReleaseBeforeComeOver) {
  if (GetParam() == SqlDialect::kPostgresql) {
    ASSERT_THAT(sallyport::testing::TestPostgres::Start(), IsOk());
  }
  testing::TempDirectory directory;
  FakeClock clock;
  Database::Options options;
  options.clock = &clock;
  if (GetParam() == SqlDialect::kSqlite) {
    options.sqlite_path = directory.File("vault.db");
  } else {
    options.postgresql = *sallyport::testing::TestPostgres::CreateDatabase();
  }
  const auto database = *Database::Open(std::move(options));
  std::vector<Migration> before = VaultMigrations();
  before.resize(4);
  ASSERT_THAT(database->Migrate(before), IsOk());
  ASSERT_THAT(database->Write([&](Transaction& tx) -> absl::Status {
    int64_t number = 0;
    for (const auto& [kind, name] : std::vector<std::pair<std::string, std::string>>{
             {"connection", "app_1"}, {"connection", "sso:corp"}, {"credential", "crd_1"}}) {
      const absl::Status added =
          tx.Exec(
                "INSERT INTO record (rid, owner_type, owner_id, kind, name, head, last_version, generation, epoch, "
                "state, reason, backoff_until, next_at, claim_until, labels, updated_at) VALUES (:rid, 'user', "
                "'corp:ada', :kind, :name, 3, 4, 2, 5, 'REVOKE_PENDING', 'why', 7, :next_at, 9, '', 10)",
                {{"rid", absl::StrCat("rec_", ++number)}, {"kind", kind}, {"name", name}, {"next_at", number}})
              .status();
      if (!added.ok()) return added;
    }
    return absl::OkStatus();
  }),
              IsOk());
  ASSERT_THAT(database->Migrate(VaultMigrations()), IsOk());
  ASSERT_THAT(database->Migrate(VaultMigrations()), IsOk()) << "again";
  ASSERT_THAT(database->Write([&](Transaction& tx) -> absl::Status {
    const auto rows = tx.Query("SELECT name, app_uid, listed_until, used_at FROM record ORDER BY rid");
    if (!rows.ok()) return rows.status();
    EXPECT_EQ((*rows)[0].Text("app_uid"), "app_1");
    EXPECT_EQ((*rows)[1].Text("app_uid"), "sso:corp");
    EXPECT_EQ((*rows)[2].Text("app_uid"), "");
    for (const Row& row : *rows) {
      EXPECT_EQ(row.Int("listed_until"), 0);
    }
    EXPECT_EQ((*rows)[0].Int("used_at"), 10) << "the last that is known";
    EXPECT_TRUE((*rows)[2].IsNull("used_at"));
    const auto found = FindRecord(tx, {{"user", "corp:ada"}, "connection", "app_1"});
    if (!found.ok()) return found.status();
    EXPECT_EQ((*found)->head, 3);
    EXPECT_EQ((*found)->generation, 2);
    EXPECT_EQ((*found)->state, "REVOKE_PENDING");
    DueQuery query;
    query.kinds = {"connection"};
    query.without_apps = {"sso:corp"};
    query.now = absl::FromUnixSeconds(1);
    query.limit = 10;
    const auto due = ListDueRecords(tx, query);
    if (!due.ok()) return due.status();
    EXPECT_EQ(due->size(), 1U);
    return SaveRecord(tx, **found);
  }),
              IsOk());
  // A replica of the release before, which still runs, links another.
  ASSERT_THAT(database->Write([&](Transaction& tx) {
    return tx
        .Exec(
            "INSERT INTO record (rid, owner_type, owner_id, kind, name, head, last_version, generation, epoch, state, "
            "reason, backoff_until, next_at, claim_until, labels, updated_at) VALUES ('rec_9', 'user', 'corp:bob', "
            "'connection', 'app_2', 1, 1, 1, 0, 'OK', '', 0, 5, 0, '', 10)")
        .status();
  }),
              IsOk());
  ASSERT_THAT(FillInApps(*database), IsOk());
  ASSERT_THAT(FillInApps(*database), IsOk()) << "at every start";
  ASSERT_THAT(database->Read([&](Transaction& tx) -> absl::Status {
    const auto rows = tx.Query("SELECT name, app_uid FROM record WHERE kind = 'connection' ORDER BY rid");
    if (!rows.ok()) return rows.status();
    EXPECT_EQ(rows->size(), 3U);
    for (const Row& row : *rows) EXPECT_EQ(row.Text("app_uid"), row.Text("name"));
    return absl::OkStatus();
  }),
              IsOk());
}

}  // namespace
}  // namespace sallyport::vault
