// SPDX-License-Identifier: Apache-2.0
// What is left of a user who has left: nothing that opens, and what is owed until it is done; on both engines.
#include <filesystem>
#include <unistd.h>

#include "absl/strings/numbers.h"
#include "absl/strings/str_join.h"

#include "common/files.h"
#include "services/vault/testing/revocations.h"

namespace sallyport::vault {
namespace {

using ::sallyport::testing::IsOk;
using ::sallyport::testing::StatusIs;
using testing::Broker;
using testing::Connection;
using testing::Ending;
using testing::kUser;
using testing::Service;
using Code = absl::StatusCode;
using Purpose = Passport::Purpose;

class LeaverTest : public testing::RevocationTest {
 protected:
  struct Copy {
    std::string table;
    Rows rows;
  };
  static const std::map<std::string, std::vector<std::string>>& Columns() {
    static const std::map<std::string, std::vector<std::string>> columns = {
        {"keyring", {"term", "state", "kek_id", "wrapped", "annotations", "created_at"}},
        {"data_key", {"owner_type", "owner_id", "key_version", "term", "destroyed", "wrapped"}},
        {"record",
         {"rid", "owner_type", "owner_id", "kind", "name", "head", "last_version", "generation", "epoch", "state",
          "reason", "next_at", "claim_until", "backoff_until", "labels", "updated_at", "app_uid", "listed_until"}},
        {"record_version",
         {"rid", "version", "generation", "role", "pinned", "shown_epoch", "labels", "sealed", "created_at"}},
    };
    return columns;
  }
  std::vector<Copy> Backup() {
    std::vector<Copy> copies;
    for (const auto& [table, columns] : Columns()) {
      copies.push_back(
          {table, harness_->Query(absl::StrCat("SELECT ", absl::StrJoin(columns, ", "), " FROM ", table))});
    }
    return copies;
  }
  // The rows as they were; with `keyring` the seeds of the terms too.
  void PutBack(const std::vector<Copy>& copies, bool keyring) {
    for (const Copy& copy : copies) {
      if (copy.table == "keyring" && !keyring) continue;
      // Without its seeds the vault's own records are left as they are, so that it does not just stay sealed.
      const std::string others = keyring || copy.table == "record_version" ? "" : " WHERE owner_id <> 'vault'";
      if (copy.table != "record_version") harness_->Sql(absl::StrCat("DELETE FROM ", copy.table, others));
      for (const Row& row : copy.rows) {
        if (!others.empty() && row.Text("owner_id") == "vault") continue;
        Insert(copy.table, row, keyring);
      }
    }
    harness_->Restart();
  }
  void Insert(const std::string& table, const Row& row, bool replace) {
    SqlParams params;
    for (const std::string& column : Columns().at(table)) {
      int64_t number = 0;
      const bool numeric = !row.IsNull(column) && absl::SimpleAtoi(row.Text(column), &number);
      params.push_back({column, row.IsNull(column) ? SqlValue(nullptr)
                                : numeric          ? SqlValue(number)
                                                   : SqlValue(row.Text(column))});
    }
    const std::vector<std::string>& columns = Columns().at(table);
    const bool version = table == "record_version";
    harness_->Sql(absl::StrCat("INSERT INTO ", table, " (", absl::StrJoin(columns, ", "),
                               ") VALUES (:", absl::StrJoin(columns, ", :"), ")",
                               version && replace ? " ON CONFLICT (rid, version) DO UPDATE SET sealed = excluded.sealed"
                               : version          ? " ON CONFLICT (rid, version) DO NOTHING"
                                                  : ""),
                  params);
  }
  // The user leaves, the provider is told, and a new term begins.
  void Leave() {
    ASSERT_THAT(Owe(Ending({.subject = kUser}), OfUser()), IsOk());
    ASSERT_THAT(DeleteOwner(Ending({.subject = kUser})), IsOk());
    for (const auto& revocation : Revocations()) {
      v1::DeleteRequest done;
      *done.mutable_record() = revocation.record();
      done.set_lease(Maintain(revocation.record())->lease().id());
      ASSERT_THAT(harness_->vault->Delete(Service("token_broker"), done), IsOk());
    }
    ASSERT_THAT(harness_->admin->RotateTerm(Service("edge")), IsOk());
  }
  void Rewrap() { ASSERT_EQ(harness_->admin->Rewrap(Service("edge"))->remaining(), 0); }
  void ExpectNothingOpens(const v1::RecordName& owed) {
    harness_->Sql("UPDATE record SET claim_until = 0, next_at = 1");
    EXPECT_FALSE(harness_->Get(Broker(), Connection()).ok());
    EXPECT_FALSE(harness_->Acquire(Connection()).ok());
    EXPECT_FALSE(Maintain(Connection()).ok());
    EXPECT_FALSE(Maintain(owed).ok());
    // Unless the vault is sealed it ends all the same, and nobody is told that anything was revoked.
    const auto ended = Owe(Ending({.subject = kUser}), OfUser());
    EXPECT_EQ(ended.ok(), harness_->admin->GetStatus()->state() == "ACTIVE");
    for (int i = 0; ended.ok() && i < ended->owed_size(); ++i) {
      EXPECT_TRUE(ended->owed(i).damaged());
      EXPECT_FALSE(ended->owed(i).has_revocation());
    }
  }
  // A connection, and one whose revocation is owed.
  v1::RecordName Populate() {
    Link(kUser, "app_1", "linked");
    Link(kUser, "app_2", "to be revoked");
    EXPECT_THAT(Owe(Broker(), Of(Connection(kUser, "app_2"))), IsOk());
    Link("corp:bob", "app_1", "of bob");
    return Revocations()[0].record();
  }
};

INSTANTIATE_TEST_SUITE_P(Engines, LeaverTest, ::testing::Values(SqlDialect::kSqlite, SqlDialect::kPostgresql),
                         [](const auto& engine) {
                           return engine.param == SqlDialect::kSqlite ? "Sqlite" : "Postgresql";
                         });

TEST_P(LeaverTest, TheOwnersKeysGoWithoutWhatIsOwed) {
  Link(kUser, "app_1", "tokens");
  ASSERT_THAT(Owe(Ending({.subject = kUser}), OfUser()), IsOk());
  for (const Passport::End& word : std::vector<Passport::End>{{.subject = "corp:eve"},
                                                              {.subject = kUser, .app_uid = "app_1"},
                                                              {.subject = kUser, .app_uid = "", .label = "work"},
                                                              {.subject = "", .app_uid = "app_1"}}) {
    EXPECT_THAT(DeleteOwner(Ending(word)), StatusIs(Code::kPermissionDenied));
  }
  EXPECT_THAT(DeleteOwner(Broker(kUser, Purpose::kPlatform)), StatusIs(Code::kPermissionDenied));
  EXPECT_THAT(DeleteOwner(Broker(kUser, Purpose::kSignIn)), StatusIs(Code::kPermissionDenied));
  ASSERT_THAT(DeleteOwner(Ending({.subject = kUser})), IsOk());
  EXPECT_TRUE(harness_->Query("SELECT owner_id FROM data_key WHERE owner_type = 'user' AND wrapped <> ''").empty());
  EXPECT_TRUE(harness_->Query("SELECT rid FROM record WHERE owner_type = 'user' AND head <> 0").empty());
  ASSERT_EQ(Revocations().size(), 1U);
  EXPECT_EQ(PayloadOf(Revocations()[0]), "tokens") << "it is still owed";
}

TEST_P(LeaverTest, WhatIsLinkedBeforeTheKeysGoIsOwedToo) {
  Link(kUser, "app_1", "before");
  ASSERT_THAT(Owe(Ending({.subject = kUser}), OfUser()), IsOk());
  Link(kUser, "app_1", "linked meanwhile");
  Link(kUser, "app_2/work", "never owed");
  Link("corp:bob", "app_1", "of bob");
  const auto destroyed = DeleteOwner(Ending({.subject = kUser}));
  ASSERT_THAT(destroyed, IsOk());
  ASSERT_EQ(destroyed->owed_size(), 2);
  EXPECT_EQ(destroyed->owed(0).connection().name(), "app_1");
  EXPECT_EQ(destroyed->owed(0).generation(), 4);
  EXPECT_EQ(destroyed->owed(1).connection().name(), "app_2/work");
  EXPECT_EQ(Revocations().size(), 3U);
  EXPECT_EQ(PayloadOf(destroyed->owed(0).revocation()), "linked meanwhile");
  EXPECT_EQ(PayloadOf(destroyed->owed(1).revocation()), "never owed");
  EXPECT_TRUE(harness_->Query("SELECT owner_id FROM data_key WHERE owner_id = 'corp:ada' AND wrapped <> ''").empty());
  EXPECT_EQ(Read("app_1", "corp:bob"), "of bob");
  EXPECT_EQ(DeleteOwner(Ending({.subject = kUser}))->owed_size(), 0) << "again";
  EXPECT_EQ(Revocations().size(), 3U);
  const auto events = Audited("vault.revocation_owed");
  ASSERT_EQ(events.size(), 3U);
  EXPECT_EQ(events[1].rule(), "delete_owner");
  EXPECT_EQ(events[1].subject(), "local:root");
}

TEST_P(LeaverTest, WhatDoesNotOpenKeepsNoKeysAlive) {
  Link(kUser, "app_1", "tokens");
  harness_->Sql("UPDATE record_version SET sealed = :x WHERE rid = (SELECT rid FROM record WHERE name = 'app_1')",
                {{"x", Bytes{"nonsense"}}});
  const auto destroyed = DeleteOwner(Ending({.subject = kUser}));
  ASSERT_THAT(destroyed, IsOk());
  ASSERT_EQ(destroyed->owed_size(), 1);
  EXPECT_TRUE(destroyed->owed(0).damaged());
  EXPECT_TRUE(harness_->Query("SELECT owner_id FROM data_key WHERE owner_type = 'user' AND wrapped <> ''").empty());
}

TEST_P(LeaverTest, RowsOfABackupOpenNowhereOnceTheirTermIsDestroyed) {
  const v1::RecordName owed = Populate();
  const std::vector<Copy> backup = Backup();
  PutBack(backup, false);
  ASSERT_EQ(Read(), "linked") << "the copy is complete";

  Leave();
  Rewrap();
  v1::DestroyTermRequest destroy;
  destroy.set_term(1);
  ASSERT_THAT(harness_->admin->DestroyTerm(Service("edge"), destroy), IsOk());
  ASSERT_EQ(Read("app_1", "corp:bob"), "of bob") << "who stays";

  PutBack(backup, false);
  ASSERT_TRUE(harness_->admin->GetStatus()->state() == "ACTIVE") << "it is not just that the vault is sealed";
  ExpectNothingOpens(owed);
}

TEST_P(LeaverTest, AWholeBackupOpensNowhereWithoutTheKekOfItsTerm) {
  const v1::RecordName owed = Populate();
  const std::vector<Copy> backup = Backup();
  PutBack(backup, true);
  ASSERT_EQ(Read(), "linked") << "the copy is complete";

  Leave();
  const std::string keys = harness_->directory.File("kek");
  ASSERT_THAT(WriteFileAtomic(keys + "/kek-2", std::string(32, 'n'), 0400), IsOk());
  ::unlink((keys + "/current").c_str());
  ASSERT_EQ(::symlink("kek-2", (keys + "/current").c_str()), 0);
  Rewrap();
  std::filesystem::remove(keys + "/kek-1");
  harness_->Restart();
  ASSERT_EQ(Read("app_1", "corp:bob"), "of bob") << "who stays";

  PutBack(backup, true);
  ExpectNothingOpens(owed);
}

}  // namespace
}  // namespace sallyport::vault
