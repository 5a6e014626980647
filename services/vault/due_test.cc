// SPDX-License-Identifier: Apache-2.0
// What is due: who is told of it, and that no app's records stand before another's; on both engines.
#include "services/vault/due.h"

#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/proto_time.h"
#include "services/vault/testing/harness.h"

namespace sallyport::vault {
namespace {

using ::sallyport::testing::IsOk;
using ::sallyport::testing::StatusIs;
using testing::Broker;
using testing::Connection;
using ::testing::ElementsAre;
using testing::Harness;
using ::testing::HasSubstr;
using ::testing::Not;
using testing::Service;

class DueTest : public ::testing::TestWithParam<SqlDialect> {
 protected:
  void SetUp() override {
    if (GetParam() == SqlDialect::kPostgresql) {
      ASSERT_THAT(sallyport::testing::TestPostgres::Start(), IsOk());
    }
    harness_ = std::make_unique<Harness>(GetParam());
    ASSERT_THAT(harness_->Put(Broker("corp:zoe"), Connection("corp:zoe", "app_9"), "x"), IsOk());  // Unseals.
  }
  // Rows as they are after OweRevocation, without what is sealed; due since `second`, one a microsecond.
  void AddRevocations(const std::string& app, int count, int64_t second) {
    ASSERT_THAT(harness_->database->Write([&](Transaction& tx) -> absl::Status {
      for (int i = 0; i < count; ++i) {
        RecordRow row;
        row.rid = absl::StrCat("rec_", app, "_", i);
        row.id = {RevocationOwner(), "revocation", absl::StrCat(app, "-", i)};
        row.head = row.last_version = row.generation = 1;
        row.state = "OWED";
        row.next_at = absl::FromUnixSeconds(second) + absl::Microseconds(i);
        row.labels = {{"app_uid", app}};
        row.updated_at = row.next_at;
        const absl::Status saved = SaveRecord(tx, row);
        if (!saved.ok()) return saved;
      }
      return absl::OkStatus();
    }),
                IsOk());
  }
  static v1::ListDueRequest Request(int limit, const std::vector<std::string>& without = {}, int claim_seconds = 0) {
    v1::ListDueRequest request;
    request.add_kinds("revocation");
    request.set_limit(limit);
    for (const std::string& app : without) request.add_without_apps(app);
    if (claim_seconds != 0) request.mutable_claim()->set_seconds(claim_seconds);
    return request;
  }
  std::vector<std::string> Due(const v1::ListDueRequest& request) {
    const auto listed = harness_->vault->ListDue(Service("token_broker"), request);
    EXPECT_THAT(listed, IsOk());
    std::vector<std::string> names;
    if (listed.ok()) {
      for (const auto& record : listed->records()) names.push_back(record.record().name());
    }
    return names;
  }
  std::unique_ptr<Harness> harness_;
};

INSTANTIATE_TEST_SUITE_P(Engines, DueTest, ::testing::Values(SqlDialect::kSqlite, SqlDialect::kPostgresql),
                         [](const auto& engine) {
                           return engine.param == SqlDialect::kSqlite ? "Sqlite" : "Postgresql";
                         });

TEST_P(DueTest, OldestFirstWhateverTheApp) {
  AddRevocations("app_1", 2, 300);
  AddRevocations("app_2", 2, 100);
  AddRevocations("app_3", 1, 200);
  AddRevocations("app_4", 1, 4'000'000'000);
  EXPECT_THAT(Due(Request(10)), ElementsAre("app_2-0", "app_2-1", "app_3-0", "app_1-0", "app_1-1"));
  EXPECT_THAT(Due(Request(3)), ElementsAre("app_2-0", "app_2-1", "app_3-0"));
  EXPECT_THAT(Due(Request(3, {"app_9"})), ElementsAre("app_2-0", "app_2-1", "app_3-0"));
  EXPECT_THAT(Due(Request(2, {"app_2"})), ElementsAre("app_3-0", "app_1-0"));
  EXPECT_THAT(Due(Request(10, {"app_1", "app_2", "app_3"})), ElementsAre());
}

TEST_P(DueTest, ThousandsOfAnAppWhoseProviderIsDownKeepNobodyWaiting) {
  AddRevocations("app_a", 3'000, 100);
  AddRevocations("app_b", 1, 200);
  EXPECT_THAT(Due(Request(50, {"app_a"})), ElementsAre("app_b-0"));
  const auto listed = harness_->vault->ListDue(Service("token_broker"), Request(1, {"app_a"}));
  EXPECT_EQ(listed->due(), 3'001) << "whether or not they are left out";
  EXPECT_EQ(listed->oldest_due().seconds(), 100);
}

TEST_P(DueTest, TheQueriesGoByTheirIndexes) {
  if (GetParam() != SqlDialect::kSqlite) GTEST_SKIP() << "PostgreSQL decides by its statistics";
  const auto plan_of = [&](const std::string& sql) {
    std::string text;
    SqlParams params;
    for (const SqlParam& param :
         SqlParams{{"kind", "revocation"}, {"now", int64_t{1}}, {"app", "app_b"}, {"limit", 50}}) {
      if (absl::StrContains(sql, ":" + param.name)) params.push_back(param);
    }
    for (const Row& row : harness_->Query("EXPLAIN QUERY PLAN " + sql, params)) {
      absl::StrAppend(&text, row.Text("detail"), "\n");
    }
    return text;
  };
  const auto is_by_index = [&](const std::string& plan) {
    EXPECT_THAT(plan, Not(HasSubstr("SCAN record")));
    EXPECT_THAT(plan, Not(HasSubstr("SCAN r\n")));
    EXPECT_THAT(plan, Not(HasSubstr("SCAN o\n")));
    EXPECT_THAT(plan, Not(HasSubstr("TEMP B-TREE")));
  };
  const std::string of_app = plan_of("SELECT * FROM record " + due_internal::OfApp());
  EXPECT_THAT(of_app, HasSubstr("record_due_app (kind=? AND app_uid=? AND next_at>? AND next_at<?)"));
  is_by_index(of_app);
  const std::string of_kind = plan_of("SELECT * FROM record " + due_internal::OfKind());
  EXPECT_THAT(of_kind, HasSubstr("record_due (kind=? AND next_at>? AND next_at<?)"));
  is_by_index(of_kind);
  // From one app to the next, and to the oldest of each.
  const std::string by_app = plan_of(due_internal::OldestByApp());
  EXPECT_THAT(by_app, HasSubstr("record_due_app (kind=? AND app_uid>?)"));
  EXPECT_THAT(by_app, HasSubstr("record_due_app (kind=? AND app_uid=?"));
  is_by_index(by_app);
  EXPECT_THAT(plan_of(due_internal::Count()), HasSubstr("record_due (kind=? AND next_at>? AND next_at<?)"));
}

TEST_P(DueTest, WhoClaimsThemIsTheOnlyOneWhoIsTold) {
  AddRevocations("app_1", 3, 100);
  EXPECT_THAT(Due(Request(2, {}, 60)), ElementsAre("app_1-0", "app_1-1"));
  EXPECT_THAT(Due(Request(2, {}, 60)), ElementsAre("app_1-2"));
  EXPECT_THAT(Due(Request(2, {}, 60)), ElementsAre());
  EXPECT_THAT(Due(Request(2)), ElementsAre()) << "nor is one who only looks";
  EXPECT_THAT(Due(Request(2, {"app_2"})), ElementsAre());
  EXPECT_EQ(harness_->vault->ListDue(Service("token_broker"), Request(2))->due(), 3) << "they are due all the same";
  harness_->Sql("UPDATE record SET listed_until = 1 WHERE name = 'app_1-1'");  // As time does, on both engines.
  EXPECT_THAT(Due(Request(2)), ElementsAre("app_1-1"));
}

TEST_P(DueTest, AClaimEndsWithTheWorkItWasMadeFor) {
  v1::PutRequest put;
  *put.mutable_record() = Connection();
  put.set_payload("rt0");
  put.mutable_next_at()->set_seconds(1'000);
  ASSERT_THAT(harness_->vault->Put(Broker(), put), IsOk());
  v1::ListDueRequest request = Request(10, {}, 300);
  request.set_kinds(0, "connection");
  ASSERT_THAT(Due(request), ElementsAre("app_1"));
  v1::AcquireLeaseRequest acquire;
  *acquire.mutable_record() = Connection();
  acquire.set_maintenance(true);
  const auto lease = harness_->vault->AcquireLease(Service("token_broker"), acquire);
  v1::PutStatusRequest status;
  *status.mutable_record() = Connection();
  status.set_lease(lease->lease().id());
  status.mutable_next_at()->set_seconds(2'000);
  ASSERT_THAT(harness_->vault->PutStatus(Service("token_broker"), status), IsOk());
  EXPECT_THAT(Due(request), ElementsAre("app_1")) << "due again before the claim would have ended";
}

TEST_P(DueTest, ConnectionsAreLeftOutByTheirNames) {
  for (const char* name : {"app_1", "app_1/work", "app_2", "sso:corp"}) {
    v1::PutRequest put;
    *put.mutable_record() = Connection(testing::kUser, name);
    put.set_payload("rt0");
    put.mutable_next_at()->set_seconds(1'000);
    ASSERT_THAT(harness_->vault->Put(Broker(), put), IsOk());
  }
  v1::ListDueRequest request = Request(10, {"app_1", "sso:corp"});
  request.set_kinds(0, "connection");
  EXPECT_THAT(Due(request), ElementsAre("app_2"));
}

TEST_P(DueTest, NothingDueHasNoTime) {
  const auto listed = harness_->vault->ListDue(Service("token_broker"), Request(0));
  ASSERT_THAT(listed, IsOk());
  EXPECT_EQ(listed->due(), 0);
  EXPECT_FALSE(listed->has_oldest_due());
}

TEST_P(DueTest, WhatIsMalformedIsRefused) {
  v1::ListDueRequest many = Request(1);
  for (int i = 0; i < 1'001; ++i) many.add_without_apps(absl::StrCat("app_", i));
  v1::ListDueRequest negative = Request(1);
  negative.mutable_claim()->set_seconds(-1);
  for (const auto& request : {Request(201), Request(-1), Request(1, {}, 301), negative, many, v1::ListDueRequest()}) {
    EXPECT_THAT(harness_->vault->ListDue(Service("token_broker"), request),
                StatusIs(absl::StatusCode::kInvalidArgument));
  }
  for (const char* service : {"authn", "registry", "edge"}) {
    EXPECT_THAT(harness_->vault->ListDue(Service(service), Request(1)), StatusIs(absl::StatusCode::kPermissionDenied));
  }
}

}  // namespace
}  // namespace sallyport::vault
