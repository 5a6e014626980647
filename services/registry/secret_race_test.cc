// SPDX-License-Identifier: Apache-2.0
#include <thread>

#include "services/registry/catalog_testing.h"
#include "services/registry/secret_ledger.h"

namespace sallyport::registry {
namespace {

using ::sallyport::testing::IsOk;
using ::sallyport::testing::StatusIs;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using Code = absl::StatusCode;

// Races for the secrets in the vault. What a stored resource refers to must be there, whatever happened meanwhile; what
// nothing refers to must go in the end.
class SecretRaceTest : public CatalogTest {
 protected:
  static std::string WithValue(const std::string& value) {
    std::string json = kBearer;
    return json.replace(json.find("hunter2"), 7, value);
  }
  static v1::McpServer At(const std::string& json, int64_t version) {
    auto server = FromJson<v1::McpServer>(json);
    server.set_version(version);
    return server;
  }
  absl::Status UpdateAt(const std::string& json, int64_t version) {
    return catalog_->Update(At(json, version), false, chief_).status();
  }
  // The value that the stored server refers to, or what is wrong.
  std::string InUse() {
    const v1::WatchEvent::Snapshot stored = Stored();
    for (const v1::McpServer& server : stored.mcp_servers()) {
      if (server.slug() != "a") continue;
      const common::v1::Secret& secret = server.app_auth().bearer().token();
      const FakeVault::Held record = vault_.Look("server_secret " + secret.vault_record());
      const auto version = record.versions.find(secret.version());
      if (version == record.versions.end()) return "LOST";
      return record.pinned.count(secret.version()) > 0 ? version->second : "NOT PINNED";
    }
    return "NO SERVER";
  }
  // Every value the vault holds for the server.
  std::vector<std::string> Held() {
    std::vector<std::string> values;
    for (const std::string& key : vault_.Keys()) {
      for (const auto& [version, value] : vault_.Look(key).versions) values.push_back(value);
    }
    return values;
  }
  // Versions that wait to be unpinned.
  std::vector<std::string> Replaced() {
    std::vector<std::string> lines = Ledger();
    std::erase_if(lines, [](const std::string& line) { return line.find("REPLACED") == std::string::npos; });
    return lines;
  }
  // A server whose bearer token was retired 31 days ago.
  void RetireBearer() {
    ASSERT_THAT(Create<v1::McpServer>(kBearer), IsOk());
    ASSERT_THAT(Update<v1::McpServer>(kOpen), IsOk());
    clock_.Advance(absl::Hours(24 * 31));
  }
};
INSTANTIATE_ENGINES(SecretRaceTest);

TEST_P(SecretRaceTest, ErasingALeftoverSparesTheEqualValueEnteredMeanwhile) {
  RetireBearer();
  vault_.BeforeDelete([this] { EXPECT_THAT(Update<v1::McpServer>(kBearer), IsOk()); });
  ASSERT_THAT(catalog_->EraseUnusedSecrets(), IsOk());
  EXPECT_EQ(InUse(), "hunter2");
  EXPECT_THAT(Held(), ElementsAre("hunter2"));
}

TEST_P(SecretRaceTest, ErasingALeftoverSparesANewValueThatIsNotSettledYet) {
  RetireBearer();
  vault_.AfterPut([this] { EXPECT_THAT(catalog_->EraseUnusedSecrets(), IsOk()); });
  ASSERT_THAT(Update<v1::McpServer>(kBearer), IsOk());
  EXPECT_EQ(InUse(), "hunter2");
  ASSERT_THAT(catalog_->EraseUnusedSecrets(), IsOk());
  EXPECT_EQ(InUse(), "hunter2");
  EXPECT_THAT(Held(), ElementsAre("hunter2"));
}

TEST_P(SecretRaceTest, AClearedSecretsErasureSparesTheValueThatFollows) {
  ASSERT_THAT(Create<v1::App>(kApp), IsOk());
  auto cleared = FromJson<v1::App>(kApp);
  cleared.mutable_client_secret()->set_clear(true);
  vault_.BeforeDelete([this] { EXPECT_THAT(Update<v1::App>(kApp), IsOk()); });
  ASSERT_THAT(catalog_->Update(cleared, false, chief_), IsOk());
  const common::v1::Secret secret = Stored().apps(0).client_secret();
  EXPECT_EQ(secret.version(), 2);
  EXPECT_EQ(vault_.Look("app_secret " + secret.vault_record()).versions,
            (std::map<int64_t, std::string>{{2, "s3cret"}}));
}

TEST_P(SecretRaceTest, SwitchingBackToWhatIsBeingErasedIsRefused) {
  ASSERT_THAT(Create<v1::McpServer>(kBearer), IsOk());
  ASSERT_THAT(Update<v1::McpServer>(kOpen), IsOk());
  clock_.Advance(absl::Hours(24 * 30) - absl::Minutes(10));
  vault_.AfterPut([this] {  // Between reading what is kept and storing, long before the write would be given up.
    clock_.Advance(absl::Minutes(20));
    EXPECT_THAT(catalog_->EraseUnusedSecrets(), IsOk());
  });
  std::string another = WithValue("other");
  another.replace(another.find("\"a\""), 3, "\"b\"");
  EXPECT_THAT(Apply(File({}, {another, kBearerNoValue}), chief_), StatusIs(Code::kAborted));
  EXPECT_TRUE(Stored().mcp_servers(0).app_auth().has_passthrough());
  EXPECT_THAT(Held(), IsEmpty()) << "nor does the new server of that file leave anything";
}

TEST_P(SecretRaceTest, AnUpdateThatLostTakesItsOwnValueBackAndNotTheWinners) {
  ASSERT_THAT(Create<v1::McpServer>(kBearer), IsOk());
  vault_.AfterPut([this] { EXPECT_THAT(UpdateAt(WithValue("winner"), 1), IsOk()); });
  EXPECT_THAT(UpdateAt(WithValue("loser"), 1), StatusIs(Code::kAborted));
  EXPECT_EQ(InUse(), "winner");
  EXPECT_THAT(Held(), ::testing::Not(Contains("loser")));
}

TEST_P(SecretRaceTest, TwoWritersOfOneValueShareNoVersion) {
  ASSERT_THAT(Create<v1::McpServer>(kBearer), IsOk());
  vault_.AfterPut([this] { EXPECT_THAT(UpdateAt(WithValue("same"), 1), IsOk()); });
  EXPECT_THAT(UpdateAt(WithValue("same"), 1), StatusIs(Code::kAborted));
  EXPECT_EQ(InUse(), "same");
}

TEST_P(SecretRaceTest, AnUpdateThatLostToOneOfTheFormerValueTakesNothingFromIt) {
  ASSERT_THAT(Create<v1::McpServer>(kBearer), IsOk());
  std::string described = kBearer;
  described.insert(1, R"("description": "x", )");
  vault_.AfterPut([&] { EXPECT_THAT(UpdateAt(described, 1), IsOk()); });
  EXPECT_THAT(UpdateAt(WithValue("loser"), 1), StatusIs(Code::kAborted));
  EXPECT_EQ(InUse(), "hunter2");
  EXPECT_THAT(Held(), ElementsAre("hunter2"));
}

TEST_P(SecretRaceTest, WhatALoserCouldNotTakeBackHousekeepingDoes) {
  ASSERT_THAT(Create<v1::McpServer>(kBearer), IsOk());
  vault_.AfterPut([this] {
    EXPECT_THAT(UpdateAt(WithValue("winner"), 1), IsOk());
    vault_.SetDown(true);
  });
  EXPECT_THAT(UpdateAt(WithValue("loser"), 1), StatusIs(Code::kAborted));
  vault_.SetDown(false);
  EXPECT_THAT(Held(), Contains("loser"));
  ASSERT_THAT(catalog_->EraseUnusedSecrets(), IsOk());
  EXPECT_THAT(Held(), ::testing::Not(Contains("loser")));
  EXPECT_EQ(InUse(), "winner");
}

TEST_P(SecretRaceTest, OfAFileWhoseSecondSecretCouldNotBeStoredTheFirstIsTakenBack) {
  vault_.AfterPut([this] { vault_.SetDown(true); });
  EXPECT_THAT(Apply(File({kApp}, {kBearer}), chief_), StatusIs(Code::kUnavailable));
  vault_.SetDown(false);
  ASSERT_THAT(catalog_->EraseUnusedSecrets(), IsOk());
  EXPECT_THAT(Held(), IsEmpty());
}

TEST_P(SecretRaceTest, AWriteThatOutlivedItsHourIsRefusedAndLeavesNothing) {
  ASSERT_THAT(Create<v1::McpServer>(kBearer), IsOk());
  vault_.AfterPut([this] {
    clock_.Advance(absl::Minutes(61));
    EXPECT_THAT(catalog_->EraseUnusedSecrets(), IsOk());
  });
  EXPECT_THAT(UpdateAt(WithValue("late"), 1), StatusIs(Code::kAborted));
  EXPECT_EQ(InUse(), "hunter2");
  EXPECT_THAT(Held(), ElementsAre("hunter2"));
}

TEST_P(SecretRaceTest, WhatADeadWriterLeftGoesAfterAnHourAndNotBefore) {
  ASSERT_THAT(Create<v1::McpServer>(kBearer), IsOk());
  const std::string record = Stored().mcp_servers(0).uid() + "/app_auth.bearer.token";
  SecretLedger::Version written;
  written.record = record;
  written.kind = "server_secret";
  written.write = "dead";
  ASSERT_THAT(SecretLedger(*database_, vault_client_, clock_).Announce({written}), IsOk());
  ASSERT_THAT(vault_client_.Put("server_secret", record, {"orphan", {"https://api.example.com"}, 1, "dead"}, ""),
              IsOk());
  clock_.Advance(absl::Minutes(59));
  ASSERT_THAT(catalog_->EraseUnusedSecrets(), IsOk());
  EXPECT_THAT(Held(), ElementsAre("hunter2", "orphan"));
  clock_.Advance(absl::Minutes(2));
  ASSERT_THAT(catalog_->EraseUnusedSecrets(), IsOk());
  EXPECT_THAT(Held(), ElementsAre("hunter2"));
  EXPECT_EQ(InUse(), "hunter2");
}

TEST_P(SecretRaceTest, WhatAWriterDidNotUnpinHousekeepingDoes) {
  ASSERT_THAT(Create<v1::McpServer>(kBearer), IsOk());
  vault_.AfterPut([this] { vault_.SetDown(true); });  // As for a writer that dies after its commit.
  ASSERT_THAT(UpdateAt(WithValue("new"), 1), IsOk());
  vault_.SetDown(false);
  EXPECT_THAT(vault_.Look(BearerKey()).pinned, ElementsAre(1, 2));
  ASSERT_THAT(catalog_->EraseUnusedSecrets(), IsOk());
  EXPECT_THAT(vault_.Look(BearerKey()).pinned, ElementsAre(2));
  EXPECT_EQ(InUse(), "new");
  EXPECT_THAT(Replaced(), IsEmpty()) << "and not again every ten minutes";
}

TEST_P(SecretRaceTest, AnUnpinnedValueIsOffTheListAndOneThatIsGoneToo) {
  ASSERT_THAT(Create<v1::McpServer>(kBearer), IsOk());
  ASSERT_THAT(UpdateAt(WithValue("new"), 1), IsOk());
  EXPECT_THAT(Replaced(), IsEmpty());
  vault_.AfterPut([this] { vault_.SetDown(true); });
  ASSERT_THAT(UpdateAt(WithValue("newer"), 2), IsOk());
  vault_.SetDown(false);
  EXPECT_THAT(Replaced(), SizeIs(1));
  ASSERT_THAT(catalog_->Delete<v1::McpServer>("a", 0, chief_), IsOk());
  ASSERT_THAT(catalog_->EraseUnusedSecrets(), IsOk());
  EXPECT_THAT(Replaced(), IsEmpty());
  EXPECT_THAT(Held(), IsEmpty());
}

// Writers and housekeeping of two replicas, all at once.
TEST_P(SecretRaceTest, InAnyTurmoilTheStoredServersSecretIsThere) {
  ASSERT_THAT(Create<v1::McpServer>(kBearer), IsOk());
  const auto other_database = Open();
  const auto other = MakeCatalog(*other_database);
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&, i] {
      Catalog& catalog = i % 2 == 0 ? *catalog_ : *other;
      for (int round = 0; round < 6; ++round) {
        const std::string json = (i + round) % 3 == 0 ? kOpen : WithValue("value" + std::to_string(round % 2));
        const absl::Status status = catalog.Update(FromJson<v1::McpServer>(json), false, chief_).status();
        EXPECT_TRUE(status.ok() || absl::IsAborted(status)) << status;
        EXPECT_THAT(catalog.EraseUnusedSecrets(), IsOk());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  ASSERT_THAT(Update<v1::McpServer>(WithValue("last")), IsOk());
  EXPECT_EQ(InUse(), "last");
  ASSERT_THAT(Update<v1::McpServer>(kOpen), IsOk());
  ASSERT_THAT(Update<v1::McpServer>(kBearerNoValue), IsOk());
  EXPECT_EQ(InUse(), "last");
  ASSERT_THAT(catalog_->Delete<v1::McpServer>("a", 0, chief_), IsOk());
  ASSERT_THAT(catalog_->EraseUnusedSecrets(), IsOk());
  EXPECT_THAT(Held(), IsEmpty());
  EXPECT_THAT(Replaced(), IsEmpty());
}

}  // namespace
}  // namespace sallyport::registry
