// SPDX-License-Identifier: Apache-2.0
// Leases that no user's passport is behind: only of what is due, and no more than the lease gives.
#include <map>
#include <memory>
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
using Code = absl::StatusCode;

// A moment that has passed, and one that has not, by the clock of either engine.
constexpr int64_t kPast = 1'000;
constexpr int64_t kFuture = 4'000'000'000;

class MaintenanceLeaseTest : public ::testing::TestWithParam<SqlDialect> {
 protected:
  void SetUp() override {
    if (GetParam() == SqlDialect::kPostgresql) {
      ASSERT_THAT(sallyport::testing::TestPostgres::Start(), IsOk());
    }
    harness_ = std::make_unique<Harness>(GetParam());
  }
  void PutDue(int64_t at, const std::string& state = "") {
    v1::PutRequest request;
    *request.mutable_record() = Connection();
    request.set_payload("token");
    request.set_state(state);
    request.mutable_next_at()->set_seconds(at);
    ASSERT_THAT(harness_->vault->Put(Broker(), request), IsOk());
  }
  absl::StatusOr<v1::AcquireLeaseResponse> Maintain(const std::string& service = "token_broker") {
    v1::AcquireLeaseRequest request;
    *request.mutable_record() = Connection();
    request.set_maintenance(true);
    return harness_->vault->AcquireLease(testing::Service(service), request);
  }
  std::unique_ptr<Harness> harness_;
};

INSTANTIATE_TEST_SUITE_P(Engines, MaintenanceLeaseTest, ::testing::Values(SqlDialect::kSqlite, SqlDialect::kPostgresql),
                         [](const auto& engine) {
                           return engine.param == SqlDialect::kSqlite ? "Sqlite" : "Postgresql";
                         });

TEST_P(MaintenanceLeaseTest, OnlyOfWhatIsDue) {
  PutDue(kPast);
  ASSERT_THAT(Maintain(), IsOk());
  harness_->LapseLeases();
  PutDue(kFuture);
  EXPECT_THAT(Maintain(), StatusIs(Code::kPermissionDenied, "not due"));
  EXPECT_EQ(ReasonOf(Maintain().status()), "not_due");
  ASSERT_THAT(harness_->Put(Broker(), Connection(), "no time at all"), IsOk());
  EXPECT_THAT(Maintain(), StatusIs(Code::kPermissionDenied));
}

TEST_P(MaintenanceLeaseTest, IsNoPlainReadAndNoOthers) {
  PutDue(kPast);
  EXPECT_THAT(harness_->Get(testing::Service("token_broker"), Connection()), StatusIs(Code::kPermissionDenied));
  EXPECT_THAT(harness_->Acquire(Connection(), testing::Service("token_broker")), StatusIs(Code::kPermissionDenied));
  for (const char* service : {"authn", "registry", "edge", ""}) {
    EXPECT_THAT(Maintain(service), StatusIs(Code::kPermissionDenied)) << service;
  }
}

TEST_P(MaintenanceLeaseTest, MayDeleteWhatItHolds) {
  PutDue(kPast, "REVOKE_PENDING");
  const std::string lease = Maintain()->lease().id();
  v1::DeleteRequest request;
  *request.mutable_record() = Connection();
  request.set_lease("lse_unknown");
  EXPECT_THAT(harness_->vault->Delete(testing::Service("token_broker"), request), StatusIs(Code::kAborted));
  request.set_lease(lease);
  EXPECT_THAT(harness_->vault->Delete(testing::Service("authn"), request), StatusIs(Code::kPermissionDenied));
  ASSERT_THAT(harness_->vault->Delete(testing::Service("token_broker"), request), IsOk());
  EXPECT_THAT(harness_->Get(Broker(), Connection()), StatusIs(Code::kNotFound));
}

TEST_P(MaintenanceLeaseTest, DeletesNothingThatWasLinkedAnewOrTakenOver) {
  PutDue(kPast, "REVOKE_PENDING");
  v1::DeleteRequest request;
  *request.mutable_record() = Connection();
  request.set_lease(Maintain()->lease().id());
  harness_->LapseLeases();
  const std::string second = Maintain()->lease().id();
  EXPECT_EQ(ReasonOf(harness_->vault->Delete(testing::Service("token_broker"), request).status()), "lease_lost");
  request.set_lease(second);
  ASSERT_THAT(harness_->Put(Broker(), Connection(), "linked anew"), IsOk());
  EXPECT_EQ(ReasonOf(harness_->vault->Delete(testing::Service("token_broker"), request).status()), "wrong_generation");
  EXPECT_EQ(harness_->Payload(Broker(), Connection()), "linked anew");
}

TEST_P(MaintenanceLeaseTest, WhatDoesNotOpenIsPutOffADay) {
  PutDue(kPast);
  harness_->Sql("UPDATE record_version SET sealed = :x WHERE rid = (SELECT rid FROM record WHERE kind = 'connection')",
                {{"x", Bytes{"nonsense"}}});
  EXPECT_THAT(Maintain(), StatusIs(Code::kDataLoss));
  EXPECT_EQ(ReasonOf(Maintain().status()), "not_due");
  const Rows rows = harness_->Query("SELECT next_at, reason, state FROM record WHERE kind = 'connection'");
  EXPECT_EQ(rows[0].Text("reason"), "damaged");
  EXPECT_EQ(rows[0].Text("state"), "OK");
  absl::Time now;
  ASSERT_THAT(harness_->database->Read([&](Transaction& tx) -> absl::Status {
    const auto read = tx.Now();
    if (read.ok()) now = *read;
    return read.status();
  }),
              IsOk());
  EXPECT_LT(absl::AbsDuration(rows[0].TimeAt("next_at") - now - absl::Hours(24)), absl::Minutes(5));
  v1::ListDueRequest due;
  due.add_kinds("connection");
  EXPECT_EQ(harness_->vault->ListDue(testing::Service("token_broker"), due)->records_size(), 0);
  std::map<std::string, std::string> audited;
  ASSERT_THAT(harness_->outbox->ShipOnce([&](const audit::v1::AppendRequest& batch) -> absl::StatusOr<uint64_t> {
    for (const auto& event : batch.events()) audited[event.type() + " " + event.rule()] = event.details().at("name");
    return batch.events(batch.events_size() - 1).sequence();
  }),
              IsOk());
  EXPECT_EQ(audited["secret.damaged tag_mismatch"], "app_1");
  EXPECT_EQ(audited["secret.write put_off.damaged"], "app_1");
  // The user links anew: all is well.
  PutDue(kPast);
  EXPECT_THAT(Maintain(), IsOk());
}

TEST_P(MaintenanceLeaseTest, TheOwnersOwnLeaseOfWhatIsDamagedPutsNothingOff) {
  PutDue(kPast);
  harness_->Sql("UPDATE record_version SET sealed = :x WHERE rid = (SELECT rid FROM record WHERE kind = 'connection')",
                {{"x", Bytes{"nonsense"}}});
  EXPECT_THAT(harness_->Acquire(Connection()), StatusIs(Code::kDataLoss));
  EXPECT_EQ(harness_->Query("SELECT reason FROM record WHERE kind = 'connection'")[0].Text("reason"), "");
}

}  // namespace
}  // namespace sallyport::vault
