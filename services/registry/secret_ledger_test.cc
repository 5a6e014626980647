// SPDX-License-Identifier: Apache-2.0
#include "services/registry/secret_ledger.h"

#include "absl/strings/str_cat.h"
#include <gmock/gmock.h>

#include "common/status_macros.h"
#include "services/registry/registry_testing.h"
#include "services/registry/store.h"

namespace sallyport::registry {
namespace {

using ::sallyport::testing::IsOk;
using ::sallyport::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;
using Code = absl::StatusCode;
using Version = SecretLedger::Version;

constexpr char kRecord[] = "srv_a/x";
constexpr char kOrigin[] = "https://a.example.com";

class SecretLedgerTest : public EngineTest {
 protected:
  static Version Of(int64_t version, const std::string& record = kRecord) {
    Version row;
    row.record = record;
    row.kind = "server_secret";
    row.version = version;
    row.origins = {kOrigin};
    return row;
  }
  static Version WrittenBy(const std::string& write, const std::string& record = kRecord) {
    Version row = Of(0, record);
    row.write = write;
    return row;
  }
  void Put(int count = 1, const std::string& write = "w") {
    for (int i = 0; i < count; ++i) {
      ASSERT_THAT(vault_client_.Put("server_secret", kRecord, {"v", {kOrigin}, 0, write}, ""), IsOk());
    }
  }
  absl::Status Settle(const std::string& write, size_t announced, const std::vector<Version>& live) {
    return Write([&](Transaction& tx) { return SecretLedger::Settle(tx, write, announced, live); });
  }
  absl::Status Retire(int64_t version, absl::Time until) {
    return Write([&](Transaction& tx) { return SecretLedger::Retire(tx, Of(version), until); });
  }
  absl::Status Resume(int64_t version) {
    return Write([&](Transaction& tx) { return SecretLedger::Resume(tx, kRecord, version); });
  }
  SecretLedger Ledger() { return SecretLedger(*database_, vault_client_, clock_); }
  absl::Status Sweep() { return Ledger().Sweep(std::nullopt, ""); }
  std::vector<std::string> Rows() {
    std::vector<std::string> lines;
    EXPECT_THAT(database_->Read([&](Transaction& tx) -> absl::Status {
      lines.clear();
      ASSIGN_OR_RETURN(const auto rows, tx.Query("SELECT * FROM secret_version ORDER BY record, version, write"));
      for (const Row& row : rows) {
        lines.push_back(absl::StrCat(row.Text("record"), " ", row.Int("version"), row.Text("write").empty() ? "" : " ",
                                     row.Text("write"), " ", row.Text("state")));
      }
      return absl::OkStatus();
    }),
                IsOk());
    return lines;
  }
  std::set<int64_t> Pinned() { return vault_.Look(absl::StrCat("server_secret ", kRecord)).pinned; }

  FakeVault vault_;
  sallyport::testing::InProcessServer vault_server_{{&vault_.service()}};
  SecretVault vault_client_{vault_server_.channel()};
};
INSTANTIATE_ENGINES(SecretLedgerTest);

TEST_P(SecretLedgerTest, ASettledWriteIsLiveAndItsPredecessorIsUnpinned) {
  Put(2);
  ASSERT_THAT(Ledger().Announce({WrittenBy("one")}), IsOk());
  EXPECT_THAT(Rows(), ElementsAre("srv_a/x 0 one WRITTEN"));
  ASSERT_THAT(Settle("one", 1, {Of(1)}), IsOk());
  EXPECT_THAT(Rows(), ElementsAre("srv_a/x 1 LIVE"));
  ASSERT_THAT(Ledger().Announce({WrittenBy("two")}), IsOk());
  ASSERT_THAT(Settle("two", 1, {Of(2)}), IsOk());
  EXPECT_THAT(Rows(), ElementsAre("srv_a/x 1 REPLACED", "srv_a/x 2 LIVE"));
  ASSERT_THAT(Sweep(), IsOk());
  EXPECT_THAT(Rows(), ElementsAre("srv_a/x 2 LIVE"));
  EXPECT_THAT(Pinned(), ElementsAre(2));
}

TEST_P(SecretLedgerTest, AWriteIsSettledOnceAndNotAfterItWasGivenUp) {
  ASSERT_THAT(Ledger().Announce({WrittenBy("one"), WrittenBy("one", "srv_a/y")}), IsOk());
  EXPECT_THAT(Settle("one", 2, {}), IsOk());
  EXPECT_THAT(Settle("one", 2, {}),
              StatusIs(Code::kAborted, "the write took too long and was given up: write it again"));
  EXPECT_THAT(Settle("unknown", 1, {}), StatusIs(Code::kAborted));
  ASSERT_THAT(Ledger().Announce({WrittenBy("two")}), IsOk());
  clock_.Advance(absl::Minutes(59));
  ASSERT_THAT(Ledger().Announce({WrittenBy("three")}), IsOk());
  ASSERT_THAT(Sweep(), IsOk());
  EXPECT_THAT(Rows(), ElementsAre("srv_a/x 0 three WRITTEN", "srv_a/x 0 two WRITTEN"));
  clock_.Advance(absl::Minutes(1));
  ASSERT_THAT(Sweep(), IsOk());
  EXPECT_THAT(Rows(), ElementsAre("srv_a/x 0 three WRITTEN"));
  EXPECT_THAT(Settle("two", 1, {}), StatusIs(Code::kAborted));
  EXPECT_THAT(Settle("three", 1, {}), IsOk());
}

TEST_P(SecretLedgerTest, WhatAnAbandonedWriteStoresLateIsTakenBackToo) {
  ASSERT_THAT(Ledger().Announce({WrittenBy("w")}), IsOk());
  Put();
  ASSERT_THAT(Ledger().Abandon("w"), IsOk());
  ASSERT_THAT(Sweep(), IsOk());
  EXPECT_THAT(Pinned(), IsEmpty());
  EXPECT_THAT(Rows(), ElementsAre("srv_a/x 0 w ERASING")) << "the vault may be storing it still";
  Put();
  clock_.Advance(SecretLedger::kKeepAbandoned);
  ASSERT_THAT(Sweep(), IsOk());
  EXPECT_THAT(Pinned(), IsEmpty());
  EXPECT_THAT(Rows(), IsEmpty());
}

TEST_P(SecretLedgerTest, OneWriteMayMakeTheOthersOfItsRecordGiveWay) {
  ASSERT_THAT(Ledger().Announce({WrittenBy("w"), WrittenBy("w", "srv_a/y")}), IsOk());
  ASSERT_THAT(Ledger().Announce({WrittenBy("mine")}), IsOk());
  ASSERT_THAT(Ledger().Announce({WrittenBy("other", "srv_b/x")}), IsOk());
  Put();
  ASSERT_THAT(Ledger().AbandonOthers(kRecord, "mine", ""), IsOk());
  EXPECT_THAT(Pinned(), IsEmpty());
  EXPECT_THAT(Settle("w", 2, {}), StatusIs(Code::kAborted));
  EXPECT_THAT(Settle("mine", 1, {}), IsOk());
  EXPECT_THAT(Settle("other", 1, {}), IsOk());
}

TEST_P(SecretLedgerTest, RetiredVersionsAreKeptUntilTheirTime) {
  Put();
  ASSERT_THAT(Settle("", 0, {Of(1)}), IsOk());
  ASSERT_THAT(Retire(1, clock_.Now() + absl::Hours(1)), IsOk());
  ASSERT_THAT(Sweep(), IsOk());
  EXPECT_THAT(Pinned(), ElementsAre(1));
  clock_.Advance(absl::Hours(1));
  vault_.SetDown(true);
  EXPECT_FALSE(Sweep().ok());
  EXPECT_THAT(Rows(), ElementsAre("srv_a/x 1 ERASING")) << "listed until the vault has answered";
  vault_.SetDown(false);
  ASSERT_THAT(Sweep(), IsOk());
  EXPECT_THAT(Pinned(), IsEmpty());
  EXPECT_THAT(Rows(), IsEmpty());
}

TEST_P(SecretLedgerTest, ARetiredVersionCanBeResumedOnceAndOnlyBeforeErasingBegins) {
  ASSERT_THAT(Retire(3, clock_.Now() + absl::Hours(1)), IsOk());
  EXPECT_THAT(Resume(2), StatusIs(Code::kAborted));
  EXPECT_THAT(Resume(3), IsOk());
  EXPECT_THAT(Rows(), ElementsAre("srv_a/x 3 LIVE"));
  EXPECT_THAT(Resume(3), StatusIs(Code::kAborted));
  ASSERT_THAT(Retire(3, clock_.Now()), IsOk());
  vault_.SetDown(true);
  EXPECT_FALSE(Sweep().ok());
  EXPECT_THAT(Resume(3), StatusIs(Code::kAborted, "a secret of the former type was erased meanwhile: give its value"));
}

TEST_P(SecretLedgerTest, ANewerVersionInUseSupersedesRetiredOnes) {
  ASSERT_THAT(Retire(3, clock_.Now() + absl::Hours(1)), IsOk());
  ASSERT_THAT(Settle("", 0, {Of(4)}), IsOk());
  EXPECT_THAT(Rows(), ElementsAre("srv_a/x 3 ERASING", "srv_a/x 4 LIVE"));
}

TEST_P(SecretLedgerTest, WhatARestoredVaultGivesOutAgainIsForgotten) {
  ASSERT_THAT(Retire(3, clock_.Now() + absl::Hours(1)), IsOk());
  ASSERT_THAT(Settle("", 0, {Of(7)}), IsOk());
  ASSERT_THAT(Settle("", 0, {Of(9)}), IsOk());
  ASSERT_THAT(Settle("", 0, {Of(5)}), IsOk());
  EXPECT_THAT(Rows(), ElementsAre("srv_a/x 3 ERASING", "srv_a/x 5 LIVE"))
      << "erasing through 7 would take what is in use";
  ASSERT_THAT(Settle("", 0, {Of(2)}), IsOk());
  EXPECT_THAT(Rows(), ElementsAre("srv_a/x 2 LIVE"));
}

TEST_P(SecretLedgerTest, ErasingAResourceTakesAllItsVersionsAndNoOthers) {
  ASSERT_THAT(Settle("", 0, {Of(1), Of(1, "srv_a/y"), Of(1, "srv_ab/x")}), IsOk());
  ASSERT_THAT(Settle("", 0, {Of(2)}), IsOk());
  ASSERT_THAT(Ledger().Announce({WrittenBy("running")}), IsOk());
  ASSERT_THAT(Write([](Transaction& tx) { return SecretLedger::EraseAll(tx, "srv_a").status(); }), IsOk());
  EXPECT_THAT(Rows(), UnorderedElementsAre("srv_a/x 0 running WRITTEN", "srv_a/x 1 ERASING", "srv_a/x 2 ERASING",
                                           "srv_a/y 1 ERASING", "srv_ab/x 1 LIVE"));
}

TEST_P(SecretLedgerTest, ErasingARecordLeavesTheOthersOfItsResource) {
  ASSERT_THAT(Settle("", 0, {Of(1), Of(1, "srv_a/xy"), Of(1, "srv_a/y")}), IsOk());
  ASSERT_THAT(Settle("", 0, {Of(2)}), IsOk());
  ASSERT_THAT(Ledger().Announce({WrittenBy("running")}), IsOk());
  std::set<std::string> records;
  ASSERT_THAT(Write([&](Transaction& tx) -> absl::Status {
                ASSIGN_OR_RETURN(records, SecretLedger::EraseRecord(tx, kRecord));
                return SecretLedger::EraseRecord(tx, "srv_a/none").status();
              }),
              IsOk());
  EXPECT_THAT(records, ElementsAre(kRecord));
  EXPECT_THAT(Rows(), UnorderedElementsAre("srv_a/x 0 running WRITTEN", "srv_a/x 1 ERASING", "srv_a/x 2 ERASING",
                                           "srv_a/xy 1 LIVE", "srv_a/y 1 LIVE"));
}

TEST_P(SecretLedgerTest, ASweepOfSomeRecordsLeavesOthers) {
  ASSERT_THAT(Settle("", 0, {Of(1), Of(1, "srv_b/x")}), IsOk());
  ASSERT_THAT(Settle("", 0, {Of(2), Of(2, "srv_b/x")}), IsOk());
  ASSERT_THAT(Ledger().Sweep(std::set<std::string>{"srv_b/x"}, ""), IsOk());
  EXPECT_THAT(Rows(), ElementsAre("srv_a/x 1 REPLACED", "srv_a/x 2 LIVE", "srv_b/x 2 LIVE"));
}

TEST_P(SecretLedgerTest, ReferencesOfStoredResourcesAreRecordedOnce) {
  const auto server =
      FromJson<v1::McpServer>(R"({"uid": "srv_a", "slug": "a", "upstreamUrl": "https://a.example.com/mcp",
      "appAuth": {"bearer": {"token": {"set": true, "version": "4", "vaultRecord": "srv_a/x",
                                       "updatedAt": "2026-01-01T00:00:00Z"}}}})");
  ASSERT_THAT(Write([&](Transaction& tx) {
                return Store::Save(tx, "McpServer", {"srv_a", "a", 1, server.SerializeAsString()}, 0);
              }),
              IsOk());
  for (int i = 0; i < 2; ++i) {
    ASSERT_THAT(Write(SecretLedger::RecordReferences), IsOk());
    EXPECT_THAT(Rows(), ElementsAre("srv_a/x 4 LIVE"));
  }
  ASSERT_THAT(Write([](Transaction& tx) -> absl::Status {
                ASSIGN_OR_RETURN(const auto versions, SecretLedger::List(tx));
                EXPECT_THAT(versions[0].origins, ElementsAre(kOrigin));
                EXPECT_EQ(versions[0].kind, "server_secret");
                EXPECT_EQ(versions[0].updated_at, absl::FromUnixSeconds(1'767'225'600));
                return absl::OkStatus();
              }),
              IsOk());
}

// The store of the release before, with its three tables.
class SecretLedgerMigrationTest : public SecretLedgerTest {
 protected:
  void SetUp() override {
    if (GetParam() == Engine::kPostgresql) {
      ASSERT_OK_AND_ASSIGN(connection_, sallyport::testing::TestPostgres::CreateDatabase());
    }
    database_ = Open();
    std::vector<Migration> before = Store::Migrations();
    before.resize(6);
    ASSERT_THAT(database_->Migrate(before), IsOk());
  }
};
INSTANTIATE_ENGINES(SecretLedgerMigrationTest);

TEST_P(SecretLedgerMigrationTest, CarriesEveryRowOver) {
  const absl::Time now = clock_.Now();
  const absl::Time until = now + absl::Hours(5);
  ASSERT_THAT(Write([&](Transaction& tx) -> absl::Status {
                const auto retired = [&](const char* record, absl::Time at) {
                  return tx
                      .Exec(
                          "INSERT INTO retired_secret (record, vault_kind, version, updated_at, origin, until) VALUES "
                          "(:record, "
                          "'app_secret', 3, :now, ' https://b.example.com https://a.example.com', :until)",
                          {{"record", record}, {"now", now}, {"until", at}})
                      .status();
                };
                const auto write = [&](const char* id, bool given_up) {
                  return tx
                      .Exec(
                          "INSERT INTO secret_write (write, record, vault_kind, at, given_up) VALUES (:id, 'srv_a/x', "
                          "'server_secret', :now, :given_up)",
                          {{"id", id}, {"now", now}, {"given_up", given_up}})
                      .status();
                };
                RETURN_IF_ERROR(retired("app_a/kept", until));
                RETURN_IF_ERROR(retired("app_a/going", absl::InfinitePast()));
                RETURN_IF_ERROR(tx.Exec("INSERT INTO replaced_secret (record, vault_kind, version) VALUES ('srv_a/x', "
                                        "'server_secret', 1)")
                                    .status());
                RETURN_IF_ERROR(write("open", false));
                return write("lost", true);
              }),
              IsOk());
  ASSERT_THAT(database_->Migrate(Store::Migrations()), IsOk());
  EXPECT_THAT(Rows(), UnorderedElementsAre("app_a/kept 3 RETIRED", "app_a/going 3 ERASING", "srv_a/x 1 REPLACED",
                                           "srv_a/x 0 open WRITTEN", "srv_a/x 0 lost ERASING"));
  ASSERT_THAT(Write([&](Transaction& tx) -> absl::Status {
                ASSIGN_OR_RETURN(const auto versions, SecretLedger::List(tx));
                for (const Version& version : versions) {
                  if (version.record == "app_a/kept") {
                    EXPECT_EQ(version.kind, "app_secret");
                    EXPECT_THAT(version.origins, ElementsAre(kOrigin, "https://b.example.com"));
                    EXPECT_EQ(version.until, absl::FromUnixMicros(absl::ToUnixMicros(until)));
                    EXPECT_EQ(version.updated_at, absl::FromUnixMicros(absl::ToUnixMicros(now)));
                  }
                  if (version.write == "open") {
                    EXPECT_EQ(version.until, absl::FromUnixMicros(absl::ToUnixMicros(now + absl::Hours(1))));
                  }
                }
                return absl::OkStatus();
              }),
              IsOk());
  clock_.Advance(absl::Hours(6));
  ASSERT_THAT(Sweep(), IsOk());
  EXPECT_THAT(Rows(), IsEmpty());
}

}  // namespace
}  // namespace sallyport::registry
