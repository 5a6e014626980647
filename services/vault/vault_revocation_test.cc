// SPDX-License-Identifier: Apache-2.0
// What becomes of connections when their revocations are owed; on both engines.
#include "services/vault/testing/revocations.h"

namespace sallyport::vault {
namespace {

using ::sallyport::testing::IsOk;
using ::sallyport::testing::StatusIs;
using testing::Administrator;
using testing::Broker;
using testing::Connection;
using testing::Ending;
using testing::kUser;
using testing::Service;
using Code = absl::StatusCode;

class RevocationTest : public testing::RevocationTest {};

INSTANTIATE_TEST_SUITE_P(Engines, RevocationTest, ::testing::Values(SqlDialect::kSqlite, SqlDialect::kPostgresql),
                         [](const auto& engine) {
                           return engine.param == SqlDialect::kSqlite ? "Sqlite" : "Postgresql";
                         });

TEST_P(RevocationTest, MovesTheTokensIntoARecordThatIsDueAtOnce) {
  Link(kUser, "app_1/work", "the tokens", {{"bound_to", "https://id.example "}, {"scope", "read"}, {"app_uid", "x"}});
  const auto owed = Owe(Broker(), Of(Connection(kUser, "app_1/work")));
  ASSERT_THAT(owed, IsOk());
  ASSERT_EQ(owed->owed_size(), 1);
  EXPECT_FALSE(owed->more());
  EXPECT_EQ(owed->owed(0).generation(), 2);
  const v1::RecordMetadata& revocation = owed->owed(0).revocation();
  EXPECT_EQ(revocation.record().name(), absl::StrCat(HexEncode(Sha256(kUser)), ":app_1/work:1"));
  EXPECT_EQ(revocation.record().owner_id(), "token_broker");
  EXPECT_EQ(revocation.state(), "OWED");
  const auto& labels = revocation.labels();
  EXPECT_EQ(labels.at("app_uid"), "app_1") << "by the connection's name, not by what a label said";
  EXPECT_EQ(labels.at("subject"), kUser);
  EXPECT_EQ(labels.at("connection"), "app_1/work");
  EXPECT_EQ(labels.at("bound_to"), "https://id.example ");
  EXPECT_EQ(labels.at("scope"), "read");
  absl::Time since;
  ASSERT_TRUE(absl::ParseTime(absl::RFC3339_full, labels.at("since"), &since, nullptr));
  EXPECT_LT(absl::AbsDuration(since - FromTimestamp(revocation.next_at())), absl::Milliseconds(1));
  EXPECT_TRUE(IsGone("app_1/work"));
  EXPECT_EQ(PayloadOf(revocation), "the tokens");
}

TEST_P(RevocationTest, ShowsNothingButUnderALeaseForMaintenance) {
  Link(kUser, "app_1", "the tokens");
  const auto owed = Owe(Broker(), Of(Connection()));
  ASSERT_THAT(owed, IsOk());
  EXPECT_EQ(owed->SerializeAsString().find("the tokens"), std::string::npos);
  const v1::RecordName revocation = owed->owed(0).revocation().record();
  for (const Caller& caller : {Service("token_broker"), Broker(), Administrator("token_broker", {"admin"})}) {
    EXPECT_THAT(harness_->Get(caller, revocation), StatusIs(Code::kPermissionDenied));
    EXPECT_THAT(harness_->Acquire(revocation, caller), StatusIs(Code::kPermissionDenied));
    EXPECT_THAT(harness_->Put(caller, revocation, "other tokens"), StatusIs(Code::kPermissionDenied));
  }
  const std::string lease = Maintain(revocation)->lease().id();
  EXPECT_THAT(harness_->PutLeased(revocation, lease, "other tokens"), StatusIs(Code::kPermissionDenied));
  for (const char* service : {"authn", "registry", "edge", ""}) {
    EXPECT_THAT(harness_->Delete(Service(service), revocation), StatusIs(Code::kPermissionDenied)) << service;
  }
}

TEST_P(RevocationTest, IsPutOffAndDeletedByItsLease) {
  Link(kUser, "app_1", "the tokens");
  const v1::RecordName revocation = Owe(Broker(), Of(Connection()))->owed(0).revocation().record();
  const std::string first = Maintain(revocation)->lease().id();
  v1::PutStatusRequest later;
  *later.mutable_record() = revocation;
  later.set_lease(first);
  later.set_reason("provider_unavailable");
  later.mutable_next_at()->set_seconds(4'000'000'000);
  ASSERT_THAT(harness_->vault->PutStatus(Service("token_broker"), later), IsOk());
  EXPECT_EQ(ReasonOf(Maintain(revocation).status()), "not_due");
  EXPECT_EQ(Revocations()[0].state(), "OWED");
  EXPECT_EQ(Revocations()[0].reason(), "provider_unavailable");

  harness_->Sql("UPDATE record SET next_at = 1 WHERE kind = 'revocation'");
  v1::DeleteRequest done;
  *done.mutable_record() = revocation;
  done.set_lease(Maintain(revocation)->lease().id());
  ASSERT_THAT(harness_->vault->Delete(Service("token_broker"), done), IsOk());
  EXPECT_TRUE(Revocations().empty());
  EXPECT_TRUE(harness_->Query("SELECT rid FROM record WHERE kind = 'revocation'").empty())
      << "what is done leaves nothing that names the user";
  EXPECT_EQ(ReasonOf(harness_->vault->Delete(Service("token_broker"), done).status()), "lease_unknown");
}

TEST_P(RevocationTest, LinkingAnewKeepsItOwed) {
  Link(kUser, "app_1", "old");
  ASSERT_THAT(Owe(Broker(), Of(Connection())), IsOk());
  Link(kUser, "app_1", "new");
  EXPECT_EQ(Read(), "new");
  ASSERT_THAT(Owe(Broker(), Of(Connection())), IsOk());
  Link(kUser, "app_1", "newest");
  const auto owed = Revocations();
  ASSERT_EQ(owed.size(), 2U);
  EXPECT_EQ(PayloadOf(owed[0]), "old");
  EXPECT_EQ(PayloadOf(owed[1]), "new");
  EXPECT_EQ(Read(), "newest");
}

TEST_P(RevocationTest, ARefreshInFlightCannotBringItBack) {
  Link(kUser, "app_1", "rt0");
  const std::string lease = harness_->Acquire(Connection())->lease().id();
  ASSERT_THAT(Owe(Broker(), Of(Connection())), IsOk()) << "a lease is no obstacle";
  const auto late = harness_->PutLeased(Connection(), lease, "rt1");
  ASSERT_THAT(late, IsOk());
  EXPECT_EQ(late->version(), 0) << "it was not stored";
  EXPECT_TRUE(IsGone());
  EXPECT_EQ(PayloadOf(late->owed().revocation()), "rt1") << "and the new token is revoked as well";
  Link(kUser, "app_1", "linked anew");
  EXPECT_EQ(ReasonOf(harness_->PutLeased(Connection(), lease, "rt1").status()), "wrong_generation");
  EXPECT_EQ(Read(), "linked anew");
}

TEST_P(RevocationTest, LateResultsAreRevokedToo) {
  Link(kUser, "app_1", "rt0");
  const std::string first = harness_->Acquire(Connection())->lease().id();
  harness_->LapseLeases();
  ASSERT_TRUE(harness_->Acquire(Connection())->has_lease());
  ASSERT_TRUE(harness_->PutLeased(Connection(), first, "rt1")->side());
  const auto owed = Owe(Broker(), Of(Connection()));
  ASSERT_THAT(owed, IsOk());
  ASSERT_EQ(owed->owed_size(), 2);
  const std::string name = owed->owed(0).revocation().record().name();
  EXPECT_EQ(owed->owed(1).revocation().record().name(), absl::StrCat(name, ":2"));
  EXPECT_EQ(owed->owed(1).generation(), owed->owed(0).generation());
  EXPECT_EQ(PayloadOf(owed->owed(0).revocation()), "rt0");
  EXPECT_EQ(PayloadOf(owed->owed(1).revocation()), "rt1");
}

TEST_P(RevocationTest, OneThatIsPendingSinceAnEarlierReleaseKeepsItsTime) {
  Link(kUser, "app_1", "tokens", {{"revoke_since", "2026-01-02T03:04:05+00:00"}}, "REVOKE_PENDING");
  Link(kUser, "app_2", "tokens", {{"revoke_since", "2026-01-02T03:04:05+00:00"}});
  const auto pending = Owe(Broker(), Of(Connection()));
  const auto linked = Owe(Broker(), Of(Connection(kUser, "app_2")));
  EXPECT_EQ(pending->owed(0).revocation().labels().at("since"), "2026-01-02T03:04:05+00:00");
  EXPECT_NE(linked->owed(0).revocation().labels().at("since"), "2026-01-02T03:04:05+00:00");
  EXPECT_FALSE(pending->owed(0).revocation().labels().contains("revoke_since"));
}

TEST_P(RevocationTest, WithoutATokenNothingIsOwed) {
  Link(kUser, "app_1", "");
  const auto owed = Owe(Broker(), Of(Connection()));
  ASSERT_THAT(owed, IsOk());
  ASSERT_EQ(owed->owed_size(), 1);
  EXPECT_FALSE(owed->owed(0).has_revocation());
  EXPECT_FALSE(owed->owed(0).damaged()) << "there was nothing to revoke";
  EXPECT_EQ(owed->owed(0).generation(), 2);
  EXPECT_TRUE(IsGone());
  EXPECT_TRUE(Revocations().empty());
}

TEST_P(RevocationTest, SaidAgainItListsNothing) {
  EXPECT_EQ(Owe(Broker(), Of(Connection()))->owed_size(), 0) << "there never was one";
  Link(kUser, "app_1", "tokens");
  ASSERT_EQ(Owe(Broker(), Of(Connection()))->owed_size(), 1);
  EXPECT_EQ(Owe(Broker(), Of(Connection()))->owed_size(), 0);
  EXPECT_EQ(Owe(Ending({.subject = kUser}), OfUser())->owed_size(), 0);
  EXPECT_EQ(Revocations().size(), 1U);
}

TEST_P(RevocationTest, OneThatDoesNotOpenHoldsUpNobody) {
  Link(kUser, "app_1", "tokens");
  Link(kUser, "app_2", "tokens");
  harness_->Sql("UPDATE record_version SET sealed = :x WHERE rid = (SELECT rid FROM record WHERE name = 'app_1')",
                {{"x", Bytes{"nonsense"}}});
  const auto owed = Owe(Ending({.subject = kUser}), OfUser());
  ASSERT_THAT(owed, IsOk());
  ASSERT_EQ(owed->owed_size(), 2);
  EXPECT_FALSE(owed->owed(0).has_revocation());
  EXPECT_TRUE(owed->owed(0).damaged()) << "which nobody may take for revoked";
  EXPECT_TRUE(owed->owed(1).has_revocation());
  EXPECT_FALSE(owed->owed(1).damaged());
  EXPECT_TRUE(IsGone());
  EXPECT_EQ(Audited("secret.damaged").size(), 1U);
}

TEST_P(RevocationTest, OneWithoutItsVersionIsDamagedToo) {
  Link(kUser, "app_1", "tokens");
  harness_->Sql("DELETE FROM record_version WHERE rid = (SELECT rid FROM record WHERE name = 'app_1')");
  const auto owed = Owe(Broker(), Of(Connection()));
  ASSERT_THAT(owed, IsOk());
  ASSERT_EQ(owed->owed_size(), 1);
  EXPECT_TRUE(owed->owed(0).damaged());
  EXPECT_TRUE(IsGone());
}

TEST_P(RevocationTest, OfOneThatDoesNotOpenTheLateResultsAreRevoked) {
  Link(kUser, "app_1", "rt0");
  const std::string first = harness_->Acquire(Connection())->lease().id();
  harness_->LapseLeases();
  ASSERT_TRUE(harness_->Acquire(Connection())->has_lease());
  ASSERT_TRUE(harness_->PutLeased(Connection(), first, "rt1")->side());
  harness_->Sql(
      "UPDATE record_version SET sealed = :x WHERE version = 1 AND rid = (SELECT rid FROM record WHERE name = "
      "'app_1')",
      {{"x", Bytes{"nonsense"}}});
  const auto owed = Owe(Broker(), Of(Connection()));
  ASSERT_THAT(owed, IsOk());
  ASSERT_EQ(owed->owed_size(), 2);
  EXPECT_EQ(PayloadOf(owed->owed(0).revocation()), "rt1");
  EXPECT_TRUE(owed->owed(1).damaged());
}

TEST_P(RevocationTest, OneUnderATermThatIsGoneHoldsUpNobody) {
  Link(kUser, "app_1", "tokens");
  harness_->Sql("UPDATE data_key SET term = 77 WHERE owner_type = 'user'");
  const auto owed = Owe(Ending({.subject = kUser}), OfUser());
  ASSERT_THAT(owed, IsOk()) << "or a user could never be revoked";
  ASSERT_EQ(owed->owed_size(), 1);
  EXPECT_TRUE(owed->owed(0).damaged());
  EXPECT_FALSE(owed->owed(0).has_revocation());
  EXPECT_TRUE(IsGone());
  EXPECT_THAT(DeleteOwner(Ending({.subject = kUser})), IsOk());
}

TEST_P(RevocationTest, ATermThatAnotherReplicaHasBegunIsNotTakenForGone) {
  Link("corp:bob", "app_1", "of bob");  // This one has loaded its keyring.
  DirectoryKek kek(harness_->directory.File("kek"));
  Keyring keyring(*harness_->database, kek, Keyring::Options{""});
  VaultAdmin admin(*harness_->database, keyring, *harness_->trail, harness_->clock);
  Vault other(Vault::Dependencies{*harness_->database, keyring, *harness_->trail, harness_->clock, nullptr});
  ASSERT_THAT(keyring.EnsureActive(harness_->clock.Now()), IsOk());
  ASSERT_THAT(admin.RotateTerm(Service("edge")), IsOk());
  v1::PutRequest put;
  *put.mutable_record() = Connection();
  put.set_payload("tokens");
  ASSERT_THAT(other.Put(Broker(), put), IsOk());
  const auto owed = Owe(Ending({.subject = kUser}), OfUser());
  ASSERT_THAT(owed, IsOk());
  ASSERT_EQ(owed->owed_size(), 1);
  EXPECT_EQ(PayloadOf(owed->owed(0).revocation()), "tokens");
}

TEST_P(RevocationTest, WhoeverOwedItAsksTheProviderFirst) {
  Link(kUser, "app_1", "tokens");
  const auto owed = Owe(Broker(), Of(Connection()));
  ASSERT_THAT(owed, IsOk());
  EXPECT_TRUE(Due().empty()) << "a lane that took it would leave nothing to tell";
  EXPECT_EQ(PayloadOf(owed->owed(0).revocation()), "tokens");
  harness_->LapseLeases();
  PassTenSeconds();
  EXPECT_EQ(Due().size(), 1U) << "and nothing is forgotten if it does not";
}

TEST_P(RevocationTest, WhatNobodyWaitsForIsDueAtOnce) {
  Link(kUser, "app_1", "leased");
  v1::OweRevocationRequest leased = Of(Connection());
  leased.set_lease(harness_->Acquire(Connection())->lease().id());
  ASSERT_THAT(Owe(Service("token_broker"), leased), IsOk());
  EXPECT_EQ(Due().size(), 1U);
  Link(kUser, "app_2", "of an app that is gone");
  Unbind("app_2");
  ASSERT_THAT(Owe(Service("token_broker"), OfApp("app_2")), IsOk());
  EXPECT_EQ(Due().size(), 2U);
}

TEST_P(RevocationTest, EachIsInTheAudit) {
  Link(kUser, "app_1", "tokens");
  Link(kUser, "app_2", "tokens");
  ASSERT_THAT(Owe(Broker(), Of(Connection())), IsOk());
  ASSERT_THAT(Owe(Ending({.subject = kUser}), OfUser()), IsOk());
  const auto events = Audited("vault.revocation_owed");
  ASSERT_EQ(events.size(), 2U);
  EXPECT_EQ(events[0].rule(), "owner");
  EXPECT_EQ(events[0].subject(), kUser);
  EXPECT_EQ(events[1].rule(), "end");
  EXPECT_EQ(events[1].subject(), "local:root") << "by whose word";
  EXPECT_EQ(events[1].details().at("owner"), absl::StrCat("user:", kUser));
  EXPECT_EQ(events[1].details().at("name"), "app_2");
  EXPECT_EQ(events[1].details().at("revocations"), "1");
}

TEST_P(RevocationTest, OfAUserEveryConnectionAndNobodyElses) {
  for (const char* name : {"app_1", "app_1/work", "app_2", "sso:corp"}) Link(kUser, name, absl::StrCat("of ", name));
  Link("corp:adam", "app_1", "of adam");
  const auto owed = Owe(Ending({.subject = kUser}), OfUser());
  ASSERT_THAT(owed, IsOk());
  EXPECT_EQ(owed->owed_size(), 4);
  EXPECT_FALSE(owed->more());
  for (const char* name : {"app_1", "app_1/work", "app_2", "sso:corp"}) EXPECT_TRUE(IsGone(name)) << name;
  EXPECT_EQ(Read("app_1", "corp:adam"), "of adam");
  EXPECT_EQ(Revocations(HexEncode(Sha256(kUser))).size(), 4U);
  EXPECT_EQ(Revocations(absl::StrCat(HexEncode(Sha256(kUser)), ":app_1")).size(), 2U);
  EXPECT_EQ(Revocations(HexEncode(Sha256("corp:adam"))).size(), 0U);
}

TEST_P(RevocationTest, OfAnAppEverybodysOfEachLabelInParts) {
  for (int i = 0; i < 60; ++i) Link(absl::StrCat("corp:user-", i), i % 2 == 0 ? "app_1" : "app_1/work", "tokens");
  Link(kUser, "app_2", "of app_2");
  Link(kUser, "app_10", "of app_10");
  const Caller word = Ending({.subject = "", .app_uid = "app_1"});
  const auto first = Owe(word, OfApp("app_1"));
  ASSERT_THAT(first, IsOk());
  EXPECT_TRUE(first->more());
  EXPECT_EQ(first->owed_size(), 50);
  const auto second = Owe(word, OfApp("app_1"));
  EXPECT_FALSE(second->more());
  EXPECT_EQ(second->owed_size(), 10);
  EXPECT_EQ(Owe(word, OfApp("app_1"))->owed_size(), 0);
  EXPECT_EQ(Read("app_2"), "of app_2");
  EXPECT_EQ(Read("app_10"), "of app_10");
  EXPECT_EQ(Revocations("", "app_1").size(), 60U);
  EXPECT_EQ(Revocations("", "app_1", 1).size(), 1U);
  EXPECT_EQ(Revocations("", "app_2").size(), 0U);
}

TEST_P(RevocationTest, OfAnAppGoesByNamesWhateverTheColumnSays) {
  Link(kUser, "app_2", "of app_2");
  harness_->Sql("UPDATE record SET app_uid = 'app_1' WHERE name = 'app_2'");
  Link(kUser, "app_1", "of app_1");
  EXPECT_EQ(Owe(Ending({.subject = "", .app_uid = "app_1"}), OfApp("app_1"))->owed_size(), 1);
  EXPECT_EQ(Read("app_2"), "of app_2");
}

TEST_P(RevocationTest, ALongNameOfAConnectionStillGivesOneThatCanBeLeased) {
  const std::string name = absl::StrCat("app_1/", std::string(500, 'x'));
  Link(kUser, name, "tokens");
  const auto owed = Owe(Broker(), Of(Connection(kUser, name)));
  ASSERT_THAT(owed, IsOk());
  EXPECT_EQ(PayloadOf(owed->owed(0).revocation()), "tokens");
}

}  // namespace
}  // namespace sallyport::vault
