// SPDX-License-Identifier: Apache-2.0
// Connections under another name: what comes along, and what is refused; on both engines.
#include <memory>
#include <optional>
#include <string>

#include <gtest/gtest.h>

#include "common/error.h"
#include "services/vault/testing/harness.h"

namespace sallyport::vault {
namespace {

using ::sallyport::testing::IsOk;
using ::sallyport::testing::StatusIs;
using testing::Broker;
using testing::Connection;
using testing::Harness;
using testing::kUser;
using testing::Service;
using Code = absl::StatusCode;
using Purpose = Passport::Purpose;

class RenameTest : public ::testing::TestWithParam<SqlDialect> {
 protected:
  void SetUp() override {
    if (GetParam() == SqlDialect::kPostgresql) {
      ASSERT_THAT(sallyport::testing::TestPostgres::Start(), IsOk());
    }
    harness_ = std::make_unique<Harness>(GetParam());
  }
  void Link(const std::string& name, const std::string& payload) {
    v1::PutRequest put;
    *put.mutable_record() = Connection(kUser, name);
    put.set_payload(payload);
    (*put.mutable_labels())["scope"] = "read";
    put.mutable_next_at()->set_seconds(1'000);
    ASSERT_THAT(harness_->vault->Put(Broker(), put), IsOk());
  }
  absl::StatusOr<v1::RenameResponse> Rename(const std::string& from, const std::string& to,
                                            const Caller& caller = Broker(kUser, Purpose::kApi),
                                            std::optional<int64_t> expected_version = std::nullopt) {
    v1::RenameRequest request;
    *request.mutable_record() = Connection(kUser, from);
    request.set_new_name(to);
    (*request.mutable_labels())["scope"] = "write";
    if (expected_version.has_value()) request.set_expected_version(*expected_version);
    return harness_->vault->Rename(caller, request);
  }
  // The holder's lease lapsed so long ago, by the store's time.
  void LapsedSince(absl::Duration ago) {
    ASSERT_THAT(harness_->database->Write([&](Transaction& tx) -> absl::Status {
      const auto now = tx.Now();
      if (!now.ok()) return now.status();
      return tx.Exec("UPDATE record SET claim_until = :at WHERE claim_until > 0", {{"at", *now - ago}}).status();
    }),
                IsOk());
  }
  std::string Read(const std::string& name) { return harness_->Payload(Broker(), Connection(kUser, name)); }
  bool IsGone(const std::string& name) {
    return absl::IsNotFound(harness_->Get(Broker(), Connection(kUser, name)).status());
  }
  std::unique_ptr<Harness> harness_;
};

INSTANTIATE_TEST_SUITE_P(Engines, RenameTest, ::testing::Values(SqlDialect::kSqlite, SqlDialect::kPostgresql),
                         [](const auto& engine) {
                           return engine.param == SqlDialect::kSqlite ? "Sqlite" : "Postgresql";
                         });

TEST_P(RenameTest, EverythingComesAlongUnderANewGeneration) {
  Link("app_1", "first");
  Link("app_1", "second");
  const std::string stale = harness_->Acquire(Connection())->lease().id();
  harness_->LapseLeases();
  const std::string last = harness_->Acquire(Connection())->lease().id();
  ASSERT_TRUE(harness_->PutLeased(Connection(), stale, "late")->side());
  ASSERT_THAT(harness_->Release(Connection(), last), IsOk());

  const auto renamed = Rename("app_1", "app_1/work");
  ASSERT_THAT(renamed, IsOk());
  EXPECT_EQ(renamed->version(), 2) << "payloads know their versions by number";
  EXPECT_EQ(renamed->generation(), 3);
  EXPECT_TRUE(IsGone("app_1"));
  const auto got = harness_->Get(Broker(), Connection(kUser, "app_1/work"));
  ASSERT_THAT(got, IsOk());
  EXPECT_EQ(got->payload(), "second");
  EXPECT_EQ(got->metadata().labels().at("scope"), "write");
  EXPECT_EQ(got->metadata().next_at().seconds(), 1'000);
  EXPECT_EQ(harness_->Payload(Broker(), Connection(kUser, "app_1/work"), 1), "first");
  const auto lease = harness_->Acquire(Connection(kUser, "app_1/work"))->lease();
  ASSERT_EQ(lease.side_size(), 1);
  EXPECT_EQ(lease.side(0).payload(), "late");
  EXPECT_FALSE(lease.took_over());
  harness_->Restart();
  EXPECT_EQ(Read("app_1/work"), "second");
}

TEST_P(RenameTest, ANameThatWasUsedBeforeGivesNoNumberAgain) {
  Link("app_1/work", "old");
  Link("app_1/work", "older");
  ASSERT_THAT(harness_->Delete(Broker(), Connection(kUser, "app_1/work")), IsOk());
  Link("app_1", "new");
  const auto renamed = Rename("app_1", "app_1/work");
  ASSERT_THAT(renamed, IsOk());
  EXPECT_EQ(renamed->version(), 3);
  EXPECT_EQ(renamed->generation(), 4);
  EXPECT_EQ(Read("app_1/work"), "new");
}

TEST_P(RenameTest, ThereAndBack) {
  Link("app_1", "tokens");
  ASSERT_THAT(Rename("app_1", "app_1/work"), IsOk());
  const auto back = Rename("app_1/work", "app_1");
  ASSERT_THAT(back, IsOk());
  EXPECT_EQ(back->generation(), 3);
  EXPECT_EQ(Read("app_1"), "tokens");
  EXPECT_TRUE(IsGone("app_1/work"));
}

TEST_P(RenameTest, ATakenNameAndAHeldLeaseAreInTheWay) {
  Link("app_1", "one");
  Link("app_1/work", "two");
  EXPECT_THAT(Rename("app_1", "app_1/work"), StatusIs(Code::kAlreadyExists));
  EXPECT_THAT(Rename("app_1", "app_1"), StatusIs(Code::kAlreadyExists));
  const std::string lease = harness_->Acquire(Connection())->lease().id();
  EXPECT_EQ(ReasonOf(Rename("app_1", "app_1/home").status()), "leased");
  ASSERT_THAT(harness_->PutLeased(Connection(), lease, "renewed"), IsOk());
  ASSERT_THAT(Rename("app_1", "app_1/home"), IsOk());
  EXPECT_EQ(Read("app_1/home"), "renewed");
  EXPECT_THAT(Rename("app_1", "app_1/again"), StatusIs(Code::kNotFound));
}

TEST_P(RenameTest, AnAnswerThatMayStillComeIsInTheWay) {
  Link("app_1", "one");
  const std::string lease = harness_->Acquire(Connection())->lease().id();
  LapsedSince(absl::Minutes(1));
  EXPECT_EQ(ReasonOf(Rename("app_1", "app_1/work").status()), "leased")
      << "what came then would be revoked, and the renamed account with it";
  ASSERT_THAT(harness_->PutLeased(Connection(), lease, "renewed"), IsOk());
  ASSERT_THAT(Rename("app_1", "app_1/work"), IsOk());
  EXPECT_EQ(Read("app_1/work"), "renewed");
  // A holder that is gone is not waited for.
  ASSERT_TRUE(harness_->Acquire(Connection(kUser, "app_1/work"))->has_lease());
  LapsedSince(absl::Minutes(3));
  EXPECT_THAT(Rename("app_1/work", "app_1"), IsOk());
}

TEST_P(RenameTest, LabelsOfAnotherVersionAreNotTaken) {
  Link("app_1", "one");
  Link("app_1", "renewed since");
  EXPECT_EQ(ReasonOf(Rename("app_1", "app_1/work", Broker(kUser, Purpose::kApi), 1).status()), "version_conflict");
  EXPECT_EQ(ReasonOf(Rename("app_1", "app_1/work", Broker(kUser, Purpose::kApi), 0).status()), "version_conflict");
  EXPECT_EQ(Read("app_1"), "renewed since");
  EXPECT_THAT(Rename("app_1", "app_1/work", Broker(kUser, Purpose::kApi), 2), IsOk());
  EXPECT_EQ(Read("app_1/work"), "renewed since");
}

TEST_P(RenameTest, TokensOfOneAppNeverBecomeThoseOfAnother) {
  Link("app_1", "tokens");
  Link("sso:corp", "of the sign-in");
  for (const char* name : {"app_2", "app_10", "app_", "sso:corp", "", "app_2/app_1"}) {
    EXPECT_THAT(Rename("app_1", name), StatusIs(Code::kInvalidArgument)) << name;
  }
  EXPECT_THAT(Rename("sso:corp", "app_1/x"), StatusIs(Code::kInvalidArgument));
  EXPECT_THAT(Rename("sso:corp", "sso:corp/x"), StatusIs(Code::kInvalidArgument));
  v1::RenameRequest secret;
  *secret.mutable_record() = testing::ServerSecret();
  secret.set_new_name("srv_1/y");
  EXPECT_THAT(harness_->vault->Rename(Broker(kUser, Purpose::kApi), secret), StatusIs(Code::kInvalidArgument));
  EXPECT_EQ(Read("app_1"), "tokens");
}

TEST_P(RenameTest, OnlyByTheOwnerInTheirBrowser) {
  Link("app_1", "tokens");
  for (const Caller& caller :
       {Service("token_broker"), Broker(), Broker(kUser, Purpose::kPlatform), Broker(kUser, Purpose::kLink),
        Broker("corp:eve", Purpose::kApi), testing::Administrator("token_broker", {"admin"}),
        testing::Ending({.subject = kUser})}) {
    EXPECT_THAT(Rename("app_1", "app_1/work", caller), StatusIs(Code::kPermissionDenied));
  }
  EXPECT_EQ(Read("app_1"), "tokens");
}

TEST_P(RenameTest, WhatDoesNotOpenStaysWhereItIs) {
  Link("app_1", "tokens");
  harness_->Sql("UPDATE record_version SET sealed = :x WHERE rid = (SELECT rid FROM record WHERE name = 'app_1')",
                {{"x", Bytes{"nonsense"}}});
  EXPECT_THAT(Rename("app_1", "app_1/work"), StatusIs(Code::kDataLoss));
  EXPECT_TRUE(IsGone("app_1/work"));
}

}  // namespace
}  // namespace sallyport::vault
