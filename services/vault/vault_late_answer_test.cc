// SPDX-License-Identifier: Apache-2.0
// Answers of providers that come when the connection has ended: they are owed to be revoked; on both engines.
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

class LateAnswerTest : public testing::RevocationTest {
 protected:
  // A holder asks the provider, and the connection ends meanwhile.
  std::string EndWhileLeased() {
    Link(kUser, "app_1", "rt0");
    const std::string lease = harness_->Acquire(Connection())->lease().id();
    EXPECT_THAT(Owe(Broker(), Of(Connection())), IsOk());
    return lease;
  }
};

INSTANTIATE_TEST_SUITE_P(Engines, LateAnswerTest, ::testing::Values(SqlDialect::kSqlite, SqlDialect::kPostgresql),
                         [](const auto& engine) {
                           return engine.param == SqlDialect::kSqlite ? "Sqlite" : "Postgresql";
                         });

TEST_P(LateAnswerTest, ItsTokenIsOwedAndDueAtOnce) {
  const std::string lease = EndWhileLeased();
  v1::PutRequest put;
  *put.mutable_record() = Connection();
  put.set_payload("rt1");
  put.set_lease(lease);
  (*put.mutable_labels())["scope"] = "read";
  (*put.mutable_labels())["subject"] = "corp:eve";
  const auto late = harness_->vault->Put(Service("token_broker"), put);
  ASSERT_THAT(late, IsOk());
  EXPECT_EQ(late->version(), 0);
  EXPECT_EQ(late->generation(), 2);
  EXPECT_FALSE(late->side());
  EXPECT_EQ(late->owed().connection().name(), "app_1");
  EXPECT_EQ(late->owed().generation(), 2);
  const v1::RecordMetadata& revocation = late->owed().revocation();
  EXPECT_EQ(revocation.record().name(), absl::StrCat(HexEncode(Sha256(kUser)), ":app_1:1:2"));
  EXPECT_EQ(revocation.labels().at("subject"), kUser) << "by the connection, not by what a label said";
  EXPECT_EQ(revocation.labels().at("app_uid"), "app_1");
  EXPECT_EQ(revocation.labels().at("scope"), "read");
  EXPECT_TRUE(revocation.labels().contains("since"));
  EXPECT_EQ(Due(), std::vector<std::string>{revocation.record().name()});
  EXPECT_EQ(PayloadOf(revocation), "rt1");
  EXPECT_TRUE(IsGone());
  EXPECT_EQ(late->SerializeAsString().find("rt1"), std::string::npos) << "it shows nothing";
}

TEST_P(LateAnswerTest, SaidAgainItIsOwedOnce) {
  const std::string lease = EndWhileLeased();
  const auto first = harness_->PutLeased(Connection(), lease, "rt1");
  const auto again = harness_->PutLeased(Connection(), lease, "rt1");
  ASSERT_THAT(again, IsOk());
  EXPECT_EQ(again->owed().revocation().record().name(), first->owed().revocation().record().name());
  EXPECT_EQ(Revocations().size(), 2U);
  const auto other = harness_->PutLeased(Connection(), lease, "rt2");
  ASSERT_THAT(other, IsOk());
  EXPECT_EQ(PayloadOf(other->owed().revocation()), "rt2") << "another token is not lost";
  EXPECT_EQ(Revocations().size(), 3U);
  EXPECT_THAT(harness_->Release(Connection(), lease), IsOk());
}

TEST_P(LateAnswerTest, OneThatWasKeptBeforeTheEndIsOwedOnce) {
  Link(kUser, "app_1", "rt0");
  const std::string first = harness_->Acquire(Connection())->lease().id();
  harness_->LapseLeases();
  ASSERT_TRUE(harness_->Acquire(Connection())->has_lease());
  ASSERT_TRUE(harness_->PutLeased(Connection(), first, "rt1")->side());
  const auto owed = Owe(Broker(), Of(Connection()));
  ASSERT_EQ(owed->owed_size(), 2);
  const auto again = harness_->PutLeased(Connection(), first, "rt1");
  ASSERT_THAT(again, IsOk());
  EXPECT_EQ(again->owed().revocation().record().name(), owed->owed(1).revocation().record().name());
  EXPECT_EQ(Revocations().size(), 2U);
}

TEST_P(LateAnswerTest, OfAFormerLinkIsOwedOnlyWhenItsHolderAsksForThat) {
  Link(kUser, "app_1", "rt0");
  const std::string lease = harness_->Acquire(Connection())->lease().id();
  Link(kUser, "app_1", "of the new link");
  EXPECT_EQ(ReasonOf(harness_->PutLeased(Connection(), lease, "rt1").status()), "wrong_generation");
  EXPECT_TRUE(Revocations().empty());
  v1::PutRequest put;
  *put.mutable_record() = Connection();
  put.set_payload("rt1");
  put.set_owe_if_linked_again(true);
  EXPECT_THAT(harness_->vault->Put(Broker(), put), StatusIs(absl::StatusCode::kInvalidArgument, "owe_if_linked_again"));
  put.set_lease(lease);
  for (int i = 0; i < 2; ++i) {
    const auto late = harness_->vault->Put(Service("token_broker"), put);
    ASSERT_THAT(late, IsOk());
    EXPECT_EQ(late->version(), 0);
    EXPECT_EQ(late->generation(), 2);
    EXPECT_TRUE(late->owed().has_revocation());
  }
  ASSERT_EQ(Revocations().size(), 1U) << "once, however often it is said";
  EXPECT_EQ(PayloadOf(Revocations()[0]), "rt1");
  EXPECT_EQ(harness_->Payload(Broker(), Connection()), "of the new link");
  EXPECT_TRUE(harness_->Acquire(Connection())->has_lease()) << "and nobody waits for it";
}

TEST_P(LateAnswerTest, OfAUserWhoIsDestroyed) {
  Link(kUser, "app_1", "rt0");
  const std::string lease = harness_->Acquire(Connection())->lease().id();
  ASSERT_THAT(DeleteOwner(Ending({.subject = kUser})), IsOk());
  const auto late = harness_->PutLeased(Connection(), lease, "rt1");
  ASSERT_THAT(late, IsOk());
  EXPECT_EQ(PayloadOf(late->owed().revocation()), "rt1");
  EXPECT_TRUE(harness_->Query("SELECT owner_id FROM data_key WHERE owner_type = 'user' AND wrapped <> ''").empty())
      << "no key of theirs comes back with it";
}

TEST_P(LateAnswerTest, WithoutATokenNothingIsOwed) {
  const std::string lease = EndWhileLeased();
  const auto late = harness_->PutLeased(Connection(), lease, "");
  ASSERT_THAT(late, IsOk());
  EXPECT_FALSE(late->owed().has_revocation());
  EXPECT_EQ(late->owed().generation(), 2);
  EXPECT_EQ(Revocations().size(), 1U);
}

TEST_P(LateAnswerTest, TakesTheLeaseThatWasGiven) {
  EndWhileLeased();
  EXPECT_EQ(ReasonOf(harness_->PutLeased(Connection(), "lse_guessed", "rt1").status()), "lease_unknown");
  Link("corp:bob", "app_1", "of bob");
  const std::string of_bob = harness_->Acquire(Connection("corp:bob"), Broker("corp:bob"))->lease().id();
  EXPECT_EQ(ReasonOf(harness_->PutLeased(Connection(), of_bob, "rt1").status()), "lease_unknown");
  EXPECT_EQ(Revocations().size(), 1U);
}

TEST_P(LateAnswerTest, OnlyTokensOfUsersAreRevoked) {
  const v1::RecordName key = testing::Name(v1::SYSTEM, "token_broker", "broker_key", "k");
  ASSERT_THAT(harness_->Put(Service("token_broker"), key, "one"), IsOk());
  const std::string lease = harness_->Acquire(key, Service("token_broker"))->lease().id();
  ASSERT_THAT(harness_->Delete(Service("token_broker"), key), IsOk());
  EXPECT_EQ(ReasonOf(harness_->PutLeased(key, lease, "late").status()), "wrong_generation");
  EXPECT_TRUE(Revocations().empty());
}

TEST_P(LateAnswerTest, IsInTheAudit) {
  const std::string lease = EndWhileLeased();
  ASSERT_THAT(harness_->PutLeased(Connection(), lease, "rt1"), IsOk());
  const auto events = Audited("vault.revocation_owed");
  ASSERT_EQ(events.size(), 2U);
  EXPECT_EQ(events[1].rule(), "late");
  EXPECT_EQ(events[1].details().at("owner"), absl::StrCat("user:", kUser));
  EXPECT_EQ(events[1].details().at("revocations"), "1");
}

}  // namespace
}  // namespace sallyport::vault
