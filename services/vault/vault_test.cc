// SPDX-License-Identifier: Apache-2.0
// The vault's contract, the same on both engines.
#include "services/vault/vault.h"

#include <chrono>
#include <future>
#include <thread>

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
using testing::Registry;
using testing::ServerSecret;
using testing::Service;
using Code = absl::StatusCode;

class VaultTest : public ::testing::TestWithParam<SqlDialect> {
 protected:
  void SetUp() override {
    if (GetParam() == SqlDialect::kPostgresql) {
      ASSERT_THAT(sallyport::testing::TestPostgres::Start(), IsOk());
    }
    harness_ = std::make_unique<Harness>(GetParam());
  }
  absl::StatusOr<v1::PutResponse> PutExpecting(int64_t expected, const std::string& payload) {
    v1::PutRequest request;
    *request.mutable_record() = Connection();
    request.set_payload(payload);
    request.set_expected_version(expected);
    return harness_->vault->Put(Broker(), request);
  }
  v1::PutRequest Rotation(const std::string& payload) {
    v1::PutRequest request;
    *request.mutable_record() = ServerSecret();
    request.set_payload(payload);
    request.set_keep_generation(true);
    request.set_only_if_changed(true);
    request.set_pin(false);
    return request;
  }
  std::vector<std::string> AuditTypes(const std::string& type) {
    std::vector<std::string> rules;
    const auto sink = [&](const audit::v1::AppendRequest& batch) -> absl::StatusOr<uint64_t> {
      for (const auto& event : batch.events()) {
        if (event.type() == type) {
          rules.push_back(event.rule());
        }
      }
      return batch.events(batch.events_size() - 1).sequence();
    };
    EXPECT_THAT(harness_->outbox->ShipOnce(sink), IsOk());
    return rules;
  }
  std::unique_ptr<Harness> harness_;
};

INSTANTIATE_TEST_SUITE_P(Engines, VaultTest, ::testing::Values(SqlDialect::kSqlite, SqlDialect::kPostgresql),
                         [](const auto& engine) {
                           return engine.param == SqlDialect::kSqlite ? "Sqlite" : "Postgresql";
                         });

TEST_P(VaultTest, EveryByteValueComesBack) {
  std::string all;
  for (int i = 0; i < 256; ++i) {
    all.push_back(static_cast<char>(i));
  }
  ASSERT_THAT(harness_->Put(Broker(), Connection(), all), IsOk());
  EXPECT_EQ(harness_->Payload(Broker(), Connection()), all);
}

TEST_P(VaultTest, PlaintextIsNotInTheStore) {
  ASSERT_THAT(harness_->Put(Broker(), Connection(), "canary-of-the-test"), IsOk());
  const Rows rows = harness_->Query("SELECT sealed FROM record_version");
  for (const Row& row : rows) {
    EXPECT_EQ(row.BytesAt("sealed").find("canary-of-the-test"), std::string::npos);
  }
}

TEST_P(VaultTest, PutIsANewVersionAndANewGeneration) {
  ASSERT_EQ(harness_->Put(Broker(), Connection(), "one")->version(), 1);
  const auto second = harness_->Put(Broker(), Connection(), "two");
  EXPECT_EQ(second->version(), 2);
  EXPECT_EQ(second->generation(), 2);
  EXPECT_EQ(harness_->Payload(Broker(), Connection(), 1), "one");
}

TEST_P(VaultTest, ExpectedVersionMustBeTheHead) {
  EXPECT_EQ(PutExpecting(0, "one")->version(), 1);
  EXPECT_THAT(PutExpecting(0, "again"), StatusIs(Code::kAborted));
  EXPECT_EQ(PutExpecting(1, "two")->version(), 2);
  const auto stale = PutExpecting(1, "three");
  EXPECT_EQ(ReasonOf(stale.status()), "version_conflict");
  EXPECT_EQ(harness_->Payload(Broker(), Connection()), "two");
}

TEST_P(VaultTest, EqualValueChangesNothing) {
  ASSERT_EQ(harness_->vault->Put(Registry(), Rotation("secret"))->version(), 1);
  const auto equal = harness_->vault->Put(Registry(), Rotation("secret"));
  EXPECT_TRUE(equal->unchanged());
  EXPECT_EQ(equal->version(), 1);
  const auto other = harness_->vault->Put(Registry(), Rotation("secret2"));
  EXPECT_FALSE(other->unchanged());
  EXPECT_EQ(other->version(), 2);
  EXPECT_EQ(other->generation(), 1);
}

TEST_P(VaultTest, DamagedSecretCanBeEnteredAgain) {
  ASSERT_THAT(harness_->vault->Put(Registry(), Rotation("secret")), IsOk());
  harness_->Sql(
      "UPDATE record_version SET sealed = :x WHERE rid IN (SELECT rid FROM record WHERE kind = 'server_secret')",
      {{"x", Bytes{std::string(132, 'x')}}});
  ASSERT_EQ(harness_->Get(Service("token_broker"), ServerSecret()).status().code(), Code::kDataLoss);
  EXPECT_EQ(harness_->vault->Put(Registry(), Rotation("secret"))->version(), 2);
  EXPECT_EQ(harness_->Payload(Service("token_broker"), ServerSecret()), "secret");
}

TEST_P(VaultTest, StaticKindsKeepTenVersionsAndConnectionsTwo) {
  for (int i = 0; i < 12; ++i) {
    ASSERT_THAT(harness_->vault->Put(Registry(), Rotation(absl::StrCat(i))), IsOk());
    ASSERT_THAT(harness_->Put(Broker(), Connection(), absl::StrCat(i)), IsOk());
  }
  EXPECT_THAT(harness_->Get(Service("token_broker"), ServerSecret(), 2), StatusIs(Code::kNotFound));
  EXPECT_EQ(harness_->Payload(Service("token_broker"), ServerSecret(), 3), "2");
  EXPECT_THAT(harness_->Get(Broker(), Connection(), 10), StatusIs(Code::kNotFound));
  EXPECT_EQ(harness_->Payload(Broker(), Connection(), 11), "10");
}

TEST_P(VaultTest, PinnedVersionsAreNeverPruned) {
  v1::PutRequest pinned = Rotation("first");
  pinned.set_pin(true);
  ASSERT_THAT(harness_->vault->Put(Registry(), pinned), IsOk());
  for (int i = 0; i < 20; ++i) {
    ASSERT_THAT(harness_->vault->Put(Registry(), Rotation(absl::StrCat(i))), IsOk());
  }
  EXPECT_EQ(harness_->Payload(Service("token_broker"), ServerSecret(), 1), "first");

  v1::PinRequest unpin;
  *unpin.mutable_record() = ServerSecret();
  unpin.set_version(1);
  ASSERT_THAT(harness_->vault->Pin(Registry(), unpin), IsOk());
  EXPECT_THAT(harness_->Get(Service("token_broker"), ServerSecret(), 1), StatusIs(Code::kNotFound));
}

TEST_P(VaultTest, PinningWhatIsNotThereIsNotFound) {
  v1::PinRequest pin;
  *pin.mutable_record() = ServerSecret();
  pin.set_version(1);
  EXPECT_THAT(harness_->vault->Pin(Registry(), pin), StatusIs(Code::kNotFound));
}

TEST_P(VaultTest, TombstoneHoldsTheGeneration) {
  ASSERT_EQ(harness_->Put(Broker(), Connection(), "one")->generation(), 1);
  EXPECT_EQ(harness_->Delete(Broker(), Connection())->generation(), 2);
  EXPECT_THAT(harness_->Get(Broker(), Connection()), StatusIs(Code::kNotFound));
  EXPECT_THAT(harness_->Get(Broker(), Connection(), 1), StatusIs(Code::kNotFound));
  const auto relinked = harness_->Put(Broker(), Connection(), "two");
  EXPECT_EQ(relinked->generation(), 3);
  EXPECT_EQ(relinked->version(), 2) << "a version number is never reused";
}

TEST_P(VaultTest, OfTwoConsumersOneWins) {
  const v1::RecordName flow = testing::Name(v1::SYSTEM, "token_broker", "link_flow", "ab12");
  ASSERT_THAT(harness_->Put(Service("token_broker"), flow, "verifier"), IsOk());
  v1::DeleteRequest request;
  *request.mutable_record() = flow;
  request.set_expected_version(1);
  EXPECT_THAT(harness_->vault->Delete(Service("token_broker"), request), IsOk());
  EXPECT_THAT(harness_->vault->Delete(Service("token_broker"), request), StatusIs(Code::kAborted));
  EXPECT_TRUE(harness_->Query("SELECT rid FROM record WHERE kind = 'link_flow'").empty());
}

TEST_P(VaultTest, DeletingWhatNeverWasIsNotFound) {
  EXPECT_THAT(harness_->Delete(Broker(), Connection()), StatusIs(Code::kNotFound));
}

TEST_P(VaultTest, CiphertextSwappedBetweenUsersIsNoticedAndRecorded) {
  ASSERT_THAT(harness_->Put(Broker("corp:ada"), Connection("corp:ada"), "hers"), IsOk());
  ASSERT_THAT(harness_->Put(Broker("corp:eve"), Connection("corp:eve"), "his"), IsOk());
  harness_->Sql(
      "UPDATE record_version SET sealed = (SELECT v.sealed FROM record_version v JOIN record r ON r.rid = v.rid "
      "WHERE r.owner_id = 'corp:ada') WHERE rid = (SELECT rid FROM record WHERE owner_id = 'corp:eve')");
  const auto stolen = harness_->Get(Broker("corp:eve"), Connection("corp:eve"));
  EXPECT_THAT(stolen, StatusIs(Code::kDataLoss));
  EXPECT_EQ(ReasonOf(stolen.status()), "tag_mismatch");
  EXPECT_EQ(AuditTypes("secret.damaged"), std::vector<std::string>{"tag_mismatch"});
}

TEST_P(VaultTest, OwnerKeySwappedBetweenUsersIsNoticed) {
  ASSERT_THAT(harness_->Put(Broker("corp:ada"), Connection("corp:ada"), "hers"), IsOk());
  ASSERT_THAT(harness_->Put(Broker("corp:eve"), Connection("corp:eve"), "his"), IsOk());
  harness_->Sql(
      "UPDATE data_key SET wrapped = (SELECT k.wrapped FROM data_key k WHERE k.owner_id = 'corp:ada') WHERE owner_id "
      "= "
      "'corp:eve'");
  EXPECT_THAT(harness_->Get(Broker("corp:eve"), Connection("corp:eve")), StatusIs(Code::kDataLoss));
}

TEST_P(VaultTest, OlderVersionPutInPlaceOfTheHeadIsNoticed) {
  ASSERT_THAT(harness_->Put(Broker(), Connection(), "one"), IsOk());
  ASSERT_THAT(harness_->Put(Broker(), Connection(), "two"), IsOk());
  harness_->Sql(
      "UPDATE record_version SET sealed = (SELECT v.sealed FROM record_version v JOIN record r ON r.rid = v.rid WHERE "
      "r.kind = 'connection' AND v.version = 1) WHERE version = 2");
  EXPECT_THAT(harness_->Get(Broker(), Connection()), StatusIs(Code::kDataLoss));
}

TEST_P(VaultTest, GenerationChangedInTheRowIsNoticed) {
  ASSERT_THAT(harness_->Put(Broker(), Connection(), "one"), IsOk());
  harness_->Sql(
      "UPDATE record_version SET generation = 2 WHERE rid IN (SELECT rid FROM record WHERE kind = 'connection')");
  EXPECT_THAT(harness_->Get(Broker(), Connection()), StatusIs(Code::kDataLoss));
}

TEST_P(VaultTest, ShreddedOwnerIsGoneForGood) {
  ASSERT_THAT(harness_->Put(Broker(), Connection(), "one"), IsOk());
  const std::string lease = harness_->Acquire(Connection())->lease().id();
  v1::DeleteOwnerRequest request;
  request.set_owner_type(v1::USER);
  request.set_owner_id(testing::kUser);
  ASSERT_THAT(harness_->vault->DeleteOwner(Broker(), request), IsOk());

  EXPECT_THAT(harness_->Get(Broker(), Connection()), StatusIs(Code::kNotFound));
  const auto late = harness_->PutLeased(Connection(), lease, "late");
  ASSERT_THAT(late, IsOk());
  EXPECT_TRUE(late->owed().has_revocation()) << "it is only kept to be revoked";
  EXPECT_THAT(harness_->Get(Broker(), Connection()), StatusIs(Code::kNotFound));
  const Rows keys = harness_->Query("SELECT wrapped, destroyed FROM data_key WHERE owner_id = 'corp:ada'");
  ASSERT_EQ(keys.size(), 1u);
  EXPECT_EQ(keys[0].Text("wrapped"), "");
  EXPECT_TRUE(keys[0].Bool("destroyed"));

  const auto again = harness_->Put(Broker(), Connection(), "new link");
  EXPECT_EQ(again->generation(), 3);
  EXPECT_EQ(harness_->Payload(Broker(), Connection()), "new link");
  EXPECT_EQ(harness_->Query("SELECT key_version FROM data_key WHERE owner_id = 'corp:ada'")[0].Int("key_version"), 2);
}

TEST_P(VaultTest, ListShowsMetadataOfOneOwnerAndNoTombstones) {
  v1::PutRequest put;
  *put.mutable_record() = Connection();
  put.set_payload("one");
  (*put.mutable_labels())["scope"] = "repo";
  ASSERT_THAT(harness_->vault->Put(Broker(), put), IsOk());
  ASSERT_THAT(harness_->Put(Broker(), Connection(testing::kUser, "app_2"), "two"), IsOk());
  ASSERT_THAT(harness_->Delete(Broker(), Connection(testing::kUser, "app_2")), IsOk());
  ASSERT_THAT(harness_->Put(Broker("corp:eve"), Connection("corp:eve"), "his"), IsOk());

  v1::ListRequest request;
  request.set_owner_type(v1::USER);
  request.set_owner_id(testing::kUser);
  const auto listed = harness_->vault->List(Broker(), request);
  ASSERT_THAT(listed, IsOk());
  ASSERT_EQ(listed->records_size(), 1);
  EXPECT_EQ(listed->records(0).record().name(), "app_1");
  EXPECT_EQ(listed->records(0).state(), "OK");
  EXPECT_EQ(listed->records(0).labels().at("scope"), "repo");
}

TEST_P(VaultTest, DueRecordsComeOldestFirst) {
  const auto put = [&](const std::string& user, int64_t seconds) {
    v1::PutRequest request;
    *request.mutable_record() = Connection(user);
    request.set_payload("x");
    request.mutable_next_at()->set_seconds(seconds);
    ASSERT_THAT(harness_->vault->Put(Broker(user), request), IsOk());
  };
  put("corp:b", 2000);
  put("corp:a", 1000);
  put("corp:later", 4'000'000'000);
  ASSERT_THAT(harness_->Put(Broker("corp:none"), Connection("corp:none"), "x"), IsOk());
  v1::ListDueRequest request;
  request.add_kinds("connection");
  const auto due = harness_->vault->ListDue(Service("token_broker"), request);
  ASSERT_EQ(due->records_size(), 2);
  EXPECT_EQ(due->records(0).record().owner_id(), "corp:a");
  EXPECT_EQ(due->records(1).next_at().seconds(), 2000);
  request.set_limit(1);
  EXPECT_EQ(harness_->vault->ListDue(Service("token_broker"), request)->records_size(), 1);
  request.set_limit(201);
  EXPECT_THAT(harness_->vault->ListDue(Service("token_broker"), request), StatusIs(Code::kInvalidArgument));
  request.set_limit(0);
  request.add_kinds("signing_key");
  EXPECT_THAT(harness_->vault->ListDue(Service("token_broker"), request), StatusIs(Code::kPermissionDenied));
}

TEST_P(VaultTest, CacheRootsAreOneADayAndOfTheNewestKey) {
  v1::GetCacheRootsRequest organization;
  organization.set_owner_type(v1::ORG);
  organization.set_owner_id("default");
  const auto before = harness_->vault->GetCacheRoots(Service("token_broker"), organization);
  ASSERT_THAT(before, IsOk());
  ASSERT_EQ(before->roots_size(), 2);
  EXPECT_EQ(before->roots(0).day(), before->roots(1).day() + 1);
  EXPECT_EQ(before->roots(0).root().size(), 32u);
  EXPECT_NE(before->roots(0).root(), before->roots(1).root());
  ASSERT_THAT(harness_->admin->RotateTerm(Service("edge")), IsOk());
  ASSERT_THAT(harness_->admin->Rewrap(Service("edge")), IsOk());
  harness_->Restart();
  const auto after = harness_->vault->GetCacheRoots(Service("token_broker"), organization);
  EXPECT_NE(after->roots(0).root(), before->roots(0).root());
  EXPECT_EQ(before->roots(0).key_version(), 1);
  EXPECT_EQ(after->roots(0).key_version(), 2);
}

TEST_P(VaultTest, CacheRootsOfAUserAreTheirOwnAndNeedTheirPassport) {
  v1::GetCacheRootsRequest request;
  request.set_owner_type(v1::USER);
  request.set_owner_id(testing::kUser);
  EXPECT_THAT(harness_->vault->GetCacheRoots(Broker(), request), StatusIs(Code::kNotFound)) << "nothing is stored yet";
  ASSERT_THAT(harness_->Put(Broker(), Connection(), "hers"), IsOk());
  ASSERT_THAT(harness_->Put(Broker("corp:eve"), Connection("corp:eve"), "his"), IsOk());
  const auto hers = harness_->vault->GetCacheRoots(Broker(), request);
  ASSERT_THAT(hers, IsOk());
  EXPECT_THAT(harness_->vault->GetCacheRoots(Service("token_broker"), request), StatusIs(Code::kPermissionDenied));
  EXPECT_THAT(harness_->vault->GetCacheRoots(Broker("corp:eve"), request), StatusIs(Code::kPermissionDenied));
  request.set_owner_id("corp:eve");
  const auto his = harness_->vault->GetCacheRoots(Broker("corp:eve"), request);
  ASSERT_THAT(his, IsOk());
  EXPECT_NE(hers->roots(0).root(), his->roots(0).root());
}

TEST_P(VaultTest, BoundsAreChecked) {
  EXPECT_THAT(harness_->Put(Broker(), Connection(), std::string(kMaxPayloadBytes + 1, 'x')),
              StatusIs(Code::kInvalidArgument));
  v1::PutRequest labels;
  *labels.mutable_record() = Connection();
  (*labels.mutable_labels())["x"] = std::string(kMaxLabelBytes, 'x');
  EXPECT_THAT(harness_->vault->Put(Broker(), labels), StatusIs(Code::kInvalidArgument));
  v1::PutRequest state;
  *state.mutable_record() = Connection();
  state.set_state("not ok");
  EXPECT_THAT(harness_->vault->Put(Broker(), state), StatusIs(Code::kInvalidArgument));
  for (const std::string& name : {std::string(), std::string(513, 'x'), std::string("a\nb"), std::string("a\0b", 3)}) {
    EXPECT_THAT(harness_->Put(Broker(), Connection(testing::kUser, name), "x"), StatusIs(Code::kInvalidArgument));
  }
  EXPECT_THAT(harness_->Put(Broker(), testing::Name(v1::USER, testing::kUser, "canary", "x"), "x"),
              StatusIs(Code::kInvalidArgument));
  EXPECT_THAT(harness_->Put(Service("authn"), testing::Name(v1::SYSTEM, "vault", "signing_key", "x"), "x"),
              StatusIs(Code::kInvalidArgument));
}

TEST_P(VaultTest, ReadsWritesAndRefusalsAreRecorded) {
  ASSERT_THAT(harness_->Put(Broker(), Connection(), "one"), IsOk());
  ASSERT_THAT(harness_->Get(Broker(), Connection()), IsOk());
  ASSERT_THAT(harness_->Acquire(Connection()), IsOk());
  ASSERT_FALSE(harness_->Get(Broker("corp:eve"), Connection()).ok());
  std::vector<std::string> seen;
  const auto sink = [&](const audit::v1::AppendRequest& batch) -> absl::StatusOr<uint64_t> {
    for (const auto& event : batch.events()) {
      seen.push_back(absl::StrCat(event.type(), " ", event.rule(), " ", event.subject()));
      EXPECT_EQ(event.source(), "vault");
      EXPECT_EQ(event.SerializeAsString().find("one"), std::string::npos);
    }
    return batch.events(batch.events_size() - 1).sequence();
  };
  ASSERT_THAT(harness_->outbox->ShipOnce(sink), IsOk());
  EXPECT_EQ(seen, (std::vector<std::string>{"secret.write put corp:ada", "secret.read get corp:ada",
                                            "secret.read lease corp:ada", "secret.denied passport_mismatch corp:eve"}));
}

TEST_P(VaultTest, BlockedAuditWithholdsTheAnswerInTime) {
  ASSERT_THAT(harness_->Put(Broker(), Connection(), "one"), IsOk());
  std::promise<void> entered;
  std::promise<void> leave;
  std::thread writer([&] {
    EXPECT_THAT(harness_->database->Write([&](Transaction&) {
      entered.set_value();
      leave.get_future().wait();
      return absl::OkStatus();
    }),
                IsOk());
  });
  entered.get_future().wait();
  auto asking = std::async(std::launch::async, [&] { return harness_->Get(Broker(), Connection()); });
  while (asking.wait_for(std::chrono::milliseconds(1)) != std::future_status::ready) {
    harness_->clock.Advance(AuditOutbox::kRecordLimit / 10);
  }
  const auto got = asking.get();
  v1::ListRequest list;
  list.set_owner_type(v1::USER);
  list.set_owner_id(testing::kUser);
  const auto listed = harness_->vault->List(Broker(), list);
  leave.set_value();
  writer.join();

  EXPECT_EQ(ReasonOf(got.status()), "audit_unavailable");
  EXPECT_THAT(listed, IsOk()) << "metadata is still answered";
}

TEST_P(VaultTest, WithoutAnAuditNothingIsRevealedOrWritten) {
  ASSERT_THAT(harness_->Put(Broker(), Connection(), "one"), IsOk());
  for (const Row& table : harness_->Query(GetParam() == SqlDialect::kSqlite
                                              ? "SELECT name FROM sqlite_master WHERE type = 'table' AND name LIKE "
                                                "'audit_outbox%'"
                                              : "SELECT tablename AS name FROM pg_tables WHERE tablename LIKE "
                                                "'audit_outbox%'")) {
    harness_->Sql(absl::StrCat("DROP TABLE ", table.Text("name")));
  }
  const auto got = harness_->Get(Broker(), Connection());
  EXPECT_EQ(ReasonOf(got.status()), "audit_unavailable");
  EXPECT_FALSE(harness_->Put(Broker(), Connection(), "two").ok());
  EXPECT_FALSE(harness_->Acquire(Connection()).ok());
  v1::ListRequest list;
  list.set_owner_type(v1::USER);
  list.set_owner_id(testing::kUser);
  const auto listed = harness_->vault->List(Broker(), list);
  ASSERT_THAT(listed, IsOk());
  EXPECT_EQ(listed->records(0).head(), 1);
}

}  // namespace
}  // namespace sallyport::vault
