// SPDX-License-Identifier: Apache-2.0
// Who may owe the revocations of connections, and what others would try; on both engines.
#include "common/status_macros.h"
#include "services/vault/envelope.h"
#include "services/vault/store.h"
#include "services/vault/testing/revocations.h"

namespace sallyport::vault {
namespace {

using ::sallyport::testing::IsOk;
using ::sallyport::testing::StatusIs;
using testing::Administrator;
using testing::Broker;
using testing::Connection;
using testing::Ending;
using testing::For;
using testing::kUser;
using testing::Service;
using Code = absl::StatusCode;
using Purpose = Passport::Purpose;

class RevocationAccessTest : public testing::RevocationTest {};

INSTANTIATE_TEST_SUITE_P(Engines, RevocationAccessTest, ::testing::Values(SqlDialect::kSqlite, SqlDialect::kPostgresql),
                         [](const auto& engine) {
                           return engine.param == SqlDialect::kSqlite ? "Sqlite" : "Postgresql";
                         });

TEST_P(RevocationAccessTest, OneRecordTakesTheOwnersPassport) {
  for (const Purpose purpose : {Purpose::kCall, Purpose::kApi, Purpose::kLink, Purpose::kPlatform}) {
    Link(kUser, "app_1", "tokens");
    EXPECT_EQ(Owe(Broker(kUser, purpose), Of(Connection()))->owed_size(), 1) << PurposeName(purpose);
  }
  Link(kUser, "app_1", "tokens");
  EXPECT_EQ(ReasonOf(Owe(Service("token_broker"), Of(Connection())).status()), "passport_required");
  for (const Caller& caller :
       {Broker("corp:eve"), Broker(kUser, Purpose::kSignIn), Administrator("token_broker", {"admin"}),
        Ending({.subject = "corp:eve"}), Ending({.subject = kUser, .app_uid = "app_2"}),
        Ending({.subject = kUser, .app_uid = "app_1", .label = "work"}), Ending({.subject = "", .app_uid = "app_2"}),
        Ending({.subject = "", .app_uid = ""})}) {
    EXPECT_EQ(ReasonOf(Owe(caller, Of(Connection())).status()), "passport_mismatch");
  }
  for (const char* service : {"authn", "registry", "edge", ""}) {
    EXPECT_EQ(ReasonOf(Owe(For(service, kUser), Of(Connection())).status()), "caller_not_allowed") << service;
  }
  EXPECT_EQ(Read(), "tokens");
  EXPECT_EQ(Audited("secret.denied").size(), 13U);
}

TEST_P(RevocationAccessTest, AnEndPassportEndsWhatItNames) {
  const std::vector<Passport::End> words = {
      {.subject = kUser},
      {.subject = kUser, .app_uid = "app_1"},
      {.subject = kUser, .app_uid = "app_1", .label = "work"},
      {.subject = "", .app_uid = "app_1"},
  };
  for (const Passport::End& word : words) {
    Link(kUser, "app_1/work", "tokens");
    EXPECT_EQ(Owe(Ending(word), Of(Connection(kUser, "app_1/work")))->owed_size(), 1);
  }
  // The default account has the empty label.
  Link(kUser, "app_1", "tokens");
  EXPECT_THAT(Owe(Ending({.subject = kUser, .app_uid = "app_1", .label = ""}), Of(Connection(kUser, "app_1/work"))),
              StatusIs(Code::kPermissionDenied));
  EXPECT_EQ(Owe(Ending({.subject = kUser, .app_uid = "app_1", .label = ""}), Of(Connection()))->owed_size(), 1);
}

TEST_P(RevocationAccessTest, AllOfAUserTakesAWordThatNamesAllOfThem) {
  Link(kUser, "app_1", "tokens");
  for (const Caller& caller :
       {Service("token_broker"), Broker(), Broker(kUser, Purpose::kApi), Broker(kUser, Purpose::kPlatform),
        Administrator("token_broker", {"admin"}), Ending({.subject = "corp:eve"}),
        Ending({.subject = kUser, .app_uid = "app_1"}), Ending({.subject = kUser, .app_uid = "", .label = "work"}),
        Ending({.subject = "", .app_uid = "app_1"})}) {
    EXPECT_THAT(Owe(caller, OfUser()), StatusIs(Code::kPermissionDenied));
    EXPECT_THAT(Owe(caller, OfUser("")), StatusIs(Code::kInvalidArgument));
  }
  EXPECT_EQ(Read(), "tokens");
}

TEST_P(RevocationAccessTest, AllOfAnAppTakesAWordThatNamesTheApp) {
  Link(kUser, "app_1", "tokens");
  for (const Caller& caller :
       {Service("token_broker"), Broker(), Administrator("token_broker", {"admin"}), Ending({.subject = kUser}),
        Ending({.subject = kUser, .app_uid = "app_1"}), Ending({.subject = "", .app_uid = "app_2"}),
        Ending({.subject = "", .app_uid = "app_1", .label = "work"})}) {
    EXPECT_THAT(Owe(caller, OfApp("app_1")), StatusIs(Code::kPermissionDenied));
  }
  EXPECT_EQ(Read(), "tokens");
}

TEST_P(RevocationAccessTest, WithoutABindingNobodyNeedsToSay) {
  Link(kUser, "app_1", "tokens");
  Link(kUser, "app_1/work", "tokens");
  Link(kUser, "app_2", "of app_2");
  Unbind("app_1");
  EXPECT_EQ(Owe(Service("token_broker"), Of(Connection()))->owed_size(), 1);
  EXPECT_EQ(Owe(Service("token_broker"), OfApp("app_1"))->owed_size(), 1);
  EXPECT_EQ(Audited("vault.revocation_owed")[1].rule(), "app_gone");
  EXPECT_THAT(Owe(Service("token_broker"), OfApp("app_2")), StatusIs(Code::kPermissionDenied));
  EXPECT_THAT(Owe(Service("token_broker"), OfUser()), StatusIs(Code::kPermissionDenied));
  EXPECT_THAT(Owe(Service("registry"), OfApp("app_1")), StatusIs(Code::kPermissionDenied));
  EXPECT_EQ(Read("app_2"), "of app_2");
}

TEST_P(RevocationAccessTest, ANameThatIsNoAppsOpensNoWayRoundTheBinding) {
  Link(kUser, "sso:corp", "of the sign-in");
  Link(kUser, "app_1/work", "of app_1");
  EXPECT_THAT(Owe(Service("token_broker"), OfApp("sso:corp")), StatusIs(Code::kPermissionDenied));
  EXPECT_THAT(Owe(Service("token_broker"), Of(Connection(kUser, "sso:corp"))), StatusIs(Code::kPermissionDenied));
  // No app has this uid, and no connection is of it.
  EXPECT_EQ(Owe(Service("token_broker"), OfApp("app_1/work"))->owed_size(), 0);
  EXPECT_EQ(Owe(Service("token_broker"), OfApp("app_"))->owed_size(), 0);
  EXPECT_EQ(Read("sso:corp"), "of the sign-in");
  EXPECT_EQ(Read("app_1/work"), "of app_1");
}

TEST_P(RevocationAccessTest, BeforeAdoptionAMissingBindingSaysNothing) {
  Unbind("app_1");
  Link(kUser, "app_1", "tokens");
  ASSERT_THAT(harness_->database->Write([&](Transaction& tx) -> absl::Status {
    const RecordId canary = {VaultOwner(), "canary", "canary"};
    ASSIGN_OR_RETURN(const auto row, FindRecord(tx, canary));
    ASSIGN_OR_RETURN(auto version, FindVersion(tx, row->rid, row->head));
    ASSIGN_OR_RETURN(const OwnerKey key, harness_->keyring->NewestKey(tx, VaultOwner()));
    const RecordIdentity identity = {harness_->keyring->state().deployment_id, canary, 1, 1};
    // As in a store of an earlier release.
    ASSIGN_OR_RETURN(version->sealed, SealRecord(key.key, key.key_version, identity, "sallyport-canary-v1", {}));
    return SaveVersion(tx, *version);
  }),
              IsOk());
  ASSERT_FALSE(harness_->admin->GetStatus()->adopted());
  EXPECT_THAT(Owe(Service("token_broker"), OfApp("app_1")), StatusIs(Code::kPermissionDenied));
  EXPECT_THAT(Owe(Service("token_broker"), Of(Connection())), StatusIs(Code::kPermissionDenied));
  EXPECT_EQ(Read(), "tokens");
}

TEST_P(RevocationAccessTest, ALeaseIsAuthorityForItsRecord) {
  Link(kUser, "app_1", "tokens", {}, "REVOKE_PENDING");
  Link(kUser, "app_2", "of app_2");
  harness_->Sql("UPDATE record SET next_at = 1 WHERE kind = 'connection'");
  v1::OweRevocationRequest request = Of(Connection());
  request.set_lease("lse_unknown");
  EXPECT_EQ(ReasonOf(Owe(Service("token_broker"), request).status()), "lease_unknown");
  request.set_lease(Maintain(Connection())->lease().id());
  *request.mutable_record() = Connection(kUser, "app_2");
  EXPECT_EQ(ReasonOf(Owe(Service("token_broker"), request).status()), "lease_unknown");
  *request.mutable_record() = Connection();
  EXPECT_THAT(Owe(Service("registry"), request), StatusIs(Code::kPermissionDenied));
  EXPECT_EQ(Owe(Service("token_broker"), request)->owed_size(), 1);
  EXPECT_EQ(Owe(Service("token_broker"), request)->owed_size(), 0) << "said again";
  EXPECT_EQ(Read("app_2"), "of app_2");
}

TEST_P(RevocationAccessTest, ALeaseThatIsLostEndsNothing) {
  Link(kUser, "app_1", "tokens");
  v1::OweRevocationRequest request = Of(Connection());
  request.set_lease(harness_->Acquire(Connection())->lease().id());
  harness_->LapseLeases();
  ASSERT_TRUE(harness_->Acquire(Connection())->has_lease());
  EXPECT_EQ(ReasonOf(Owe(Service("token_broker"), request).status()), "lease_lost");
  Link(kUser, "app_1", "linked anew");
  EXPECT_EQ(ReasonOf(Owe(Service("token_broker"), request).status()), "wrong_generation");
  EXPECT_EQ(Read(), "linked anew");
}

TEST_P(RevocationAccessTest, TheExpectedVersionMustBeTheHead) {
  Link(kUser, "app_1", "one");
  v1::OweRevocationRequest request = Of(Connection());
  request.set_expected_version(2);
  EXPECT_EQ(ReasonOf(Owe(Broker(), request).status()), "version_conflict");
  request.set_expected_version(1);
  EXPECT_EQ(Owe(Broker(), request)->owed_size(), 1);
  EXPECT_EQ(ReasonOf(Owe(Broker(), request).status()), "version_conflict");
}

TEST_P(RevocationAccessTest, WhatIsMalformedIsRefused) {
  std::vector<v1::OweRevocationRequest> requests = {
      {}, Of(Connection()), OfUser(), OfApp("app_1"), Of(testing::ServerSecret()), Of(Connection("", "app_1"))};
  requests[1].set_owner_id(kUser);
  requests[2].set_lease("lse_x");
  requests[3].set_expected_version(1);
  for (const auto& request : requests) {
    EXPECT_THAT(Owe(Ending({.subject = kUser}), request), StatusIs(Code::kInvalidArgument))
        << request.ShortDebugString();
  }
}

}  // namespace
}  // namespace sallyport::vault
