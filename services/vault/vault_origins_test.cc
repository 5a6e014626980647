// SPDX-License-Identifier: Apache-2.0
// Where payloads may be sent: what is sealed with them, who may change it, and how a store of an earlier release gets
// it.
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include <gtest/gtest.h>

#include "common/crypto/crypto.h"
#include "common/error.h"
#include "services/vault/testing/harness.h"

namespace sallyport::vault {
namespace {

using ::sallyport::testing::IsOk;
using ::sallyport::testing::StatusIs;
using testing::Broker;
using testing::Harness;
using testing::Registry;
using testing::ServerSecret;
using testing::Service;
using Code = absl::StatusCode;

constexpr char kGood[] = "https://api.example.com";
constexpr char kOther[] = "https://other.example:8443";

Caller Api(const std::vector<std::string>& roles) {
  Caller caller = testing::For("registry", "corp:root");
  caller.passport->purpose = Passport::Purpose::kApi;
  caller.passport->roles = roles;
  return caller;
}
v1::RecordName AppBinding(const std::string& uid = "app_1") {
  return testing::Name(v1::ORG, "default", "app_binding", uid + "/binding");
}
v1::RecordName ServerBinding(const std::string& uid = "srv_1") {
  return testing::Name(v1::ORG, "default", "server_binding", uid + "/binding");
}

class VaultOriginsTest : public ::testing::TestWithParam<SqlDialect> {
 protected:
  void SetUp() override {
    if (GetParam() == SqlDialect::kPostgresql) {
      ASSERT_THAT(sallyport::testing::TestPostgres::Start(), IsOk());
    }
    harness_ = std::make_unique<Harness>(GetParam());
  }
  absl::StatusOr<v1::PutResponse> Put(const Caller& caller, const v1::RecordName& record, const std::string& payload,
                                      const std::vector<std::string>& origins, bool only_if_changed = false) {
    v1::PutRequest request;
    *request.mutable_record() = record;
    request.set_payload(payload);
    request.set_keep_generation(true);
    request.set_only_if_changed(only_if_changed);
    request.set_pin(true);
    request.mutable_origins()->Assign(origins.begin(), origins.end());
    return harness_->vault->Put(caller, request);
  }
  absl::StatusOr<v1::RebindResponse> Rebind(const Caller& caller, const v1::RecordName& record, int64_t version,
                                            const std::vector<std::string>& origins) {
    v1::RebindRequest request;
    *request.mutable_record() = record;
    request.set_version(version);
    request.mutable_origins()->Assign(origins.begin(), origins.end());
    return harness_->vault->Rebind(caller, request);
  }
  // "<payload> to <origins>", or the reason or code of the error.
  std::string Seen(const v1::RecordName& record, int64_t version = 0) {
    const auto got = harness_->Get(Service("token_broker"), record, version);
    if (!got.ok()) {
      return ReasonOf(got.status()).empty() ? absl::StatusCodeToString(got.status().code()) : ReasonOf(got.status());
    }
    return absl::StrCat(got->payload(), " to", got->origins_size() == 0 ? "" : " ", absl::StrJoin(got->origins(), " "),
                        got->bound() == v1::BOUND ? "" : absl::StrCat(" ", v1::Bound_Name(got->bound())));
  }
  // Makes of a version what an earlier release would have stored: format 1, by the algorithm as it was.
  void Unbind(const v1::RecordName& record, const std::string& payload) { Unbind(*ParseRecordName(record), payload); }
  void Unbind(const RecordId& id, const std::string& payload) {
    ASSERT_THAT(harness_->database->Write([&](Transaction& tx) -> absl::Status {
      auto row = FindRecord(tx, id);
      auto version = FindVersion(tx, (*row)->rid, (*row)->head);
      auto key = harness_->keyring->NewestKey(tx, id.owner);
      const RecordIdentity identity = {harness_->keyring->state().deployment_id, id, (*version)->version,
                                       (*version)->generation};
      std::string salt(32, 's');
      std::string info("sallyport/v1/rec");
      info.push_back('\0');
      const Secret record_key = HkdfExpandSha256(key->key.Expose(), info + salt, 32);
      auto sealed = AeadSeal(record_key, envelope_internal::Pad(payload).Expose(),
                             envelope_internal::RecordAssociatedData(1, identity, key->key_version));
      (*version)->sealed =
          std::string("SP\x01\x01", 4) + std::string(3, '\0') + static_cast<char>(key->key_version) + salt + *sealed;
      return SaveVersion(tx, **version);
    }),
                IsOk());
  }
  // As if the store were one of an earlier release.
  void ForgetAdoption() { Unbind(RecordId{VaultOwner(), "canary", "canary"}, "sallyport-canary-v1"); }

  std::unique_ptr<Harness> harness_;
};

INSTANTIATE_TEST_SUITE_P(Engines, VaultOriginsTest, ::testing::Values(SqlDialect::kSqlite, SqlDialect::kPostgresql),
                         [](const auto& engine) {
                           return engine.param == SqlDialect::kSqlite ? "Sqlite" : "Postgresql";
                         });

TEST_P(VaultOriginsTest, ComeBackWithThePayload) {
  ASSERT_THAT(Put(Registry(), ServerSecret(), "key", {kGood, kOther}), IsOk());
  EXPECT_EQ(Seen(ServerSecret()), "key to https://api.example.com https://other.example:8443");
  ASSERT_THAT(Put(Registry(), ServerSecret("srv_2/x"), "key", {}), IsOk());
  EXPECT_EQ(Seen(ServerSecret("srv_2/x")), "key to") << "to nowhere";
}

TEST_P(VaultOriginsTest, MustBeOrigins) {
  for (const char* origin : {"api.example.com", "https://api.example.com/", "https://API.example.com",
                             "https://api.example.com:443", "ftp://a.example", "*", ""}) {
    EXPECT_THAT(Put(Registry(), ServerSecret(), "key", {origin}), StatusIs(Code::kInvalidArgument)) << origin;
  }
  EXPECT_THAT(Put(Registry(), ServerSecret(), "key", std::vector<std::string>(65, kGood)),
              StatusIs(Code::kInvalidArgument));
}

TEST_P(VaultOriginsTest, OthersAreAChange) {
  const int64_t first = Put(Registry(), ServerSecret(), "key", {kGood}, true)->version();
  EXPECT_TRUE(Put(Registry(), ServerSecret(), "key", {kGood}, true)->unchanged());
  const auto moved = Put(Registry(), ServerSecret(), "key", {kOther}, true);
  EXPECT_FALSE(moved->unchanged());
  EXPECT_GT(moved->version(), first);
}

TEST_P(VaultOriginsTest, NoColumnSaysThem) {
  ASSERT_THAT(Put(Registry(), ServerSecret(), "key", {kGood}), IsOk());
  for (const char* table : {"record", "record_version"}) {
    for (const Row& row : harness_->Query(absl::StrCat("SELECT labels FROM ", table))) {
      EXPECT_EQ(row.BytesAt("labels").find("example.com"), std::string::npos);
    }
  }
}

TEST_P(VaultOriginsTest, AreChangedByACredentialAdminWithoutBeingShown) {
  const int64_t version = Put(Registry(), ServerSecret(), "key", {kGood})->version();
  for (const Caller& caller : {Registry(), Api({"admin"}), Api({"auditor"}), testing::For("registry", "corp:root")}) {
    EXPECT_THAT(Rebind(caller, ServerSecret(), version, {kOther}), StatusIs(Code::kPermissionDenied));
  }
  const auto rebound = Rebind(Api({"credential-admin"}), ServerSecret(), version, {kGood, kOther});
  ASSERT_THAT(rebound, IsOk());
  EXPECT_GT(rebound->version(), version);
  EXPECT_EQ(Seen(ServerSecret(), version), "key to https://api.example.com") << "a version never changes";
  EXPECT_EQ(Seen(ServerSecret()), "key to https://api.example.com https://other.example:8443");
  EXPECT_THAT(Rebind(Api({"credential-admin"}), ServerSecret(), 77, {kGood}), StatusIs(Code::kNotFound));
  EXPECT_THAT(Rebind(Api({"credential-admin"}), testing::Connection(), 1, {kGood}), StatusIs(Code::kPermissionDenied));
}

TEST_P(VaultOriginsTest, ABindingIsMadeByAnAdminAndChangedByACredentialAdmin) {
  EXPECT_THAT(Put(Registry(), AppBinding(), "name", {kGood}), StatusIs(Code::kPermissionDenied));
  EXPECT_THAT(Put(Api({"credential-admin"}), AppBinding(), "name", {kGood}), StatusIs(Code::kPermissionDenied));
  const auto made = Put(Api({"admin"}), AppBinding(), "name", {kGood});
  ASSERT_THAT(made, IsOk());
  EXPECT_THAT(Put(Api({"admin"}), AppBinding(), "name", {kOther}), StatusIs(Code::kPermissionDenied));
  EXPECT_EQ(Seen(AppBinding()), "name to https://api.example.com");
  ASSERT_THAT(Rebind(Api({"admin", "credential-admin"}), AppBinding(), made->version(), {kOther}), IsOk());
  EXPECT_EQ(Seen(AppBinding()), "name to https://other.example:8443");
  // A server moves with its administrator.
  ASSERT_THAT(Put(Api({"admin"}), ServerBinding(), "name", {kGood}), IsOk());
  ASSERT_THAT(Put(Api({"admin"}), ServerBinding(), "name", {kOther}), IsOk());
}

TEST_P(VaultOriginsTest, EditingTheStoreMovesNothing) {
  ASSERT_THAT(Put(Registry(), ServerSecret(), "key", {kGood}), IsOk());
  ASSERT_THAT(Put(Registry(), ServerSecret("srv_2/evil"), "bait", {kOther}), IsOk());
  // The neighbour's sealed bytes, which allow another origin, in this record's place.
  harness_->Sql(
      "UPDATE record_version SET sealed = (SELECT v.sealed FROM record_version v JOIN record r ON r.rid = v.rid WHERE "
      "r.name = 'srv_2/evil') WHERE rid = (SELECT rid FROM record WHERE name = 'srv_1/app_auth.bearer.token')");
  EXPECT_EQ(Seen(ServerSecret()), "tag_mismatch");
}

TEST_P(VaultOriginsTest, ANewStoreHasNothingToAdopt) {
  v1::AdoptRequest request;
  EXPECT_THAT(harness_->vault->Adopt(Registry(), request), StatusIs(Code::kFailedPrecondition));
  EXPECT_TRUE(harness_->admin->GetStatus()->adopted());
}

TEST_P(VaultOriginsTest, AStoreOfAnEarlierReleaseIsAdoptedOnce) {
  ASSERT_THAT(Put(Registry(), ServerSecret(), "key", {}), IsOk());
  Unbind(ServerSecret(), "key");
  ASSERT_THAT(Put(Registry(), ServerSecret("srv_2/left"), "left", {}), IsOk());
  Unbind(ServerSecret("srv_2/left"), "left");
  ForgetAdoption();
  harness_->Restart();
  EXPECT_EQ(Seen(ServerSecret()), "key to ADOPTION_PENDING");
  EXPECT_FALSE(harness_->admin->GetStatus()->adopted());

  v1::AdoptRequest request;
  auto* secret = request.add_entries();
  *secret->mutable_record() = ServerSecret();
  secret->set_version(1);
  secret->add_origins(kGood);
  auto* binding = request.add_entries();
  *binding->mutable_record() = AppBinding();
  binding->add_origins(kGood);
  auto* missing = request.add_entries();
  *missing->mutable_record() = ServerSecret("srv_9/none");
  missing->set_version(3);
  EXPECT_THAT(harness_->vault->Adopt(Service("token_broker"), request), StatusIs(Code::kPermissionDenied));
  const auto adopted = harness_->vault->Adopt(Registry(), request);
  ASSERT_THAT(adopted, IsOk());
  ASSERT_EQ(adopted->versions_size(), 3);
  EXPECT_EQ(adopted->versions(0), 1);
  EXPECT_EQ(adopted->versions(1), 1);
  EXPECT_EQ(adopted->versions(2), 0);
  EXPECT_EQ(Seen(ServerSecret()), "key to https://api.example.com");
  EXPECT_EQ(Seen(ServerSecret("srv_2/left")), "left to ADOPTION_PENDING");
  // Again, by another replica: what is bound stays as it is.
  request.mutable_entries(0)->set_origins(0, kOther);
  ASSERT_THAT(harness_->vault->Adopt(Registry(), request), IsOk());
  EXPECT_EQ(Seen(ServerSecret()), "key to https://api.example.com");

  v1::AdoptRequest complete;
  complete.set_complete(true);
  ASSERT_THAT(harness_->vault->Adopt(Registry(), complete), IsOk());
  EXPECT_THAT(harness_->vault->Adopt(Registry(), request), StatusIs(Code::kFailedPrecondition));
  EXPECT_EQ(Seen(ServerSecret("srv_2/left")), "left to UNBOUND");
  harness_->Restart();
  EXPECT_EQ(Seen(ServerSecret()), "key to https://api.example.com");
  EXPECT_TRUE(harness_->admin->GetStatus()->adopted());
}

TEST_P(VaultOriginsTest, WhatAnEarlierReleaseStoresDuringTheUpgradeIsAdoptedToo) {
  ASSERT_THAT(harness_->keyring->EnsureActive(harness_->clock.Now()), IsOk());
  ForgetAdoption();
  ASSERT_THAT(Put(Registry(), ServerSecret(), "key", {}), IsOk());
  EXPECT_EQ(Seen(ServerSecret()), "key to ADOPTION_PENDING");
  ASSERT_THAT(Put(Registry(), ServerSecret("srv_2/x"), "key", {kGood}), IsOk());
  EXPECT_EQ(Seen(ServerSecret("srv_2/x")), "key to https://api.example.com");
}

TEST_P(VaultOriginsTest, FormerBindingsDoNotStay) {
  const int64_t wide = Put(Api({"admin"}), AppBinding(), "name", {kGood, kOther})->version();
  ASSERT_THAT(Rebind(Api({"credential-admin"}), AppBinding(), wide, {kGood}), IsOk());
  v1::PinRequest unpin;
  *unpin.mutable_record() = AppBinding();
  unpin.set_version(wide);
  ASSERT_THAT(harness_->vault->Pin(Registry(), unpin), IsOk());
  EXPECT_EQ(Seen(AppBinding(), wide), "NOT_FOUND");
  EXPECT_EQ(Seen(AppBinding()), "name to https://api.example.com");
}

TEST_P(VaultOriginsTest, WhatWasNeverAdoptedStaysSoWhenItIsSealedAnew) {
  ASSERT_THAT(Put(Registry(), ServerSecret(), "key", {}), IsOk());
  Unbind(ServerSecret(), "key");
  ASSERT_THAT(harness_->admin->RotateTerm(Service("edge")), IsOk());
  ASSERT_THAT(harness_->admin->Rewrap(Service("edge")), IsOk());
  EXPECT_EQ(Seen(ServerSecret()), "key to UNBOUND");
}

}  // namespace
}  // namespace sallyport::vault
