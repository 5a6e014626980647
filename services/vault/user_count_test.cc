// SPDX-License-Identifier: Apache-2.0
// How many users have a record; on both engines.
#include "services/vault/user_count.h"

#include "absl/strings/str_cat.h"
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/error.h"
#include "services/vault/testing/harness.h"
#include "services/vault/vault.h"

namespace sallyport::vault {
namespace {

using ::sallyport::testing::IsOk;
using ::sallyport::testing::StatusIs;
using testing::Broker;
using testing::Connection;
using testing::For;
using testing::Harness;
using testing::Name;
using testing::Registry;
using Holding = v1::CountUsersRequest::Holding;

Caller Administrator(const std::string& role = "admin") {
  Caller caller = For("registry", "local:root");
  caller.passport->purpose = Passport::Purpose::kApi;
  caller.passport->roles = {role};
  return caller;
}

Holding Has(const std::string& kind, const std::string& name) {
  Holding holding;
  holding.set_kind(kind);
  holding.set_name(name);
  return holding;
}
Holding With(Holding holding, const std::string& label, const std::vector<std::string>& words,
             const std::string& prefix = "") {
  auto& rule = *holding.add_labels();
  rule.set_name(label);
  rule.mutable_words()->Assign(words.begin(), words.end());
  rule.set_prefix(prefix);
  return holding;
}

Holding Every(Holding holding) {
  holding.set_every_account(true);
  return holding;
}

class UserCountTest : public ::testing::TestWithParam<SqlDialect> {
 protected:
  void SetUp() override {
    if (GetParam() == SqlDialect::kPostgresql) {
      ASSERT_THAT(sallyport::testing::TestPostgres::CreateDatabase(), IsOk());
    }
    harness_ = std::make_unique<Harness>(GetParam());
  }
  void Link(const std::string& user, const std::map<std::string, std::string>& labels, const std::string& app = "app_1",
            const std::string& state = "") {
    v1::PutRequest put;
    *put.mutable_record() = Connection(user, app);
    put.set_payload("tokens");
    put.mutable_labels()->insert(labels.begin(), labels.end());
    put.set_state(state);
    ASSERT_THAT(harness_->vault->Put(Broker(user), put), IsOk());
  }
  // "<users> <lacking>", with "+" if there may be more.
  std::string Count(const Holding& has, const Holding& lacks = {}) {
    v1::CountUsersRequest request;
    *request.mutable_has() = has;
    if (!lacks.kind().empty()) *request.mutable_lacks() = lacks;
    const auto counted = harness_->vault->CountUsers(Administrator(), request);
    if (!counted.ok()) return std::string(counted.status().message());
    return absl::StrCat(counted->users(), " ", counted->lacking(), counted->at_least() ? "+" : "");
  }
  // As a store of many users has them, without sealing a payload for each.
  void AddRows(int count) {
    ASSERT_THAT(harness_->database->Write([&](Transaction& tx) -> absl::Status {
      for (int i = 0; i < count; ++i) {
        RecordRow row;
        row.rid = absl::StrCat("rec_many", 1'000'000 + i);
        row.id = {{"user", absl::StrCat("corp:u", i)}, "connection", "app_1"};
        row.head = row.last_version = row.generation = 1;
        row.state = "OK";
        row.labels = {{"scope", i % 2 == 0 ? "read" : "read write"}};
        const absl::Status saved = SaveRecord(tx, row);
        if (!saved.ok()) return saved;
      }
      return absl::OkStatus();
    }),
                IsOk());
  }

  std::unique_ptr<Harness> harness_;
};
INSTANTIATE_TEST_SUITE_P(Engines, UserCountTest, ::testing::Values(SqlDialect::kSqlite, SqlDialect::kPostgresql),
                         [](const auto& engine) {
                           return engine.param == SqlDialect::kSqlite ? "Sqlite" : "Postgresql";
                         });

TEST_P(UserCountTest, CountsThoseWhoseConnectionIsGoodAndThoseOfThemThatLackAScope) {
  Link("corp:ada", {{"scope", "read write"}});
  Link("corp:bob", {{"scope", "read writers"}});
  Link("corp:cleo", {{"scope", ""}});
  Link("corp:dan", {{"scope", "read write"}}, "app_1", "NEEDS_REAUTH");
  Link("corp:eve", {{"scope", "read"}}, "app_2");
  Link("corp:fay", {{"scope", "read"}});
  ASSERT_THAT(harness_->Delete(Broker("corp:fay"), Connection("corp:fay")), IsOk());

  const Holding app = Has("connection", "app_1");
  EXPECT_EQ(Count(app), "3 0");
  EXPECT_EQ(Count(With(app, "scope", {"read"})), "2 0");
  EXPECT_EQ(Count(app, With(app, "scope", {"write"})), "3 2");
  EXPECT_EQ(Count(With(app, "scope", {"read"}), With(app, "scope", {"read", "write"})), "2 1");
  EXPECT_EQ(Count(Has("connection", "app_3")), "0 0");
}

TEST_P(UserCountTest, AUserWithSeveralAccountsOfAnAppCountsOnce) {
  Link("corp:ada", {});
  Link("corp:ada", {}, "app_1/work");
  Link("corp:bob", {}, "app_1/home");
  Link("corp:bob", {}, "app_1/work");
  Link("corp:cleo", {}, "app_1/work", "NEEDS_REAUTH");
  Link("corp:dan", {}, "app_1/~work", "REVOKE_PENDING");
  Link("corp:eve", {}, "app_10");
  Link("corp:eve", {}, "app_2/app_1");
  Link("corp:fay", {}, "app_1/work");
  ASSERT_THAT(harness_->Delete(Broker("corp:fay"), Connection("corp:fay", "app_1/work")), IsOk());

  EXPECT_EQ(Count(Every(Has("connection", "app_1"))), "2 0");
  EXPECT_EQ(Count(Has("connection", "app_1")), "1 0");
  EXPECT_EQ(Count(Every(Has("connection", "app_1/work"))), "0 0");
}

TEST_P(UserCountTest, AnotherRecordOfTheSameUserIsLookedAt) {
  Link("corp:ada", {{"scope", "read"}});
  Link("corp:ada", {{"scope", "read"}}, "app_2");
  Link("corp:bob", {{"scope", "read"}});
  Link("corp:cleo", {{"scope", "read"}});
  Link("corp:cleo", {{"scope", "other"}}, "app_2");
  Link("corp:dan", {{"scope", "read"}}, "app_2");

  EXPECT_EQ(Count(Has("connection", "app_1"), Has("connection", "app_2")), "3 1");
  EXPECT_EQ(Count(Has("connection", "app_1"), With(Has("connection", "app_2"), "scope", {"read"})), "3 2");
}

TEST_P(UserCountTest, WhereTokensCameFromIsTheBeginningOfALabel) {
  Link("corp:ada", {{"bound_to", "https://a.example https://b.example"}});
  Link("corp:bob", {{"bound_to", "https://b.example "}});
  const Holding app = Has("connection", "app_1");
  EXPECT_EQ(Count(With(app, "bound_to", {}, "https://a.example "), With(app, "bound_to", {}, "https://b.example ")),
            "1 1");
}

TEST_P(UserCountTest, WhatNoLabelSaysIsNotGuessed) {
  Link("corp:ada", {{"scope", "read"}});
  Link("corp:bob", {});
  const Holding app = Has("connection", "app_1");
  EXPECT_EQ(Count(app), "2 0");
  EXPECT_EQ(Count(app, With(app, "scope", {"read"})), "1 0+");
}

TEST_P(UserCountTest, UsersOwnCredentialsAreCountedAndTheOrganizationsAreNot) {
  v1::PutRequest put;
  *put.mutable_record() = Name(v1::USER, "corp:ada", "credential", "crd_1");
  put.set_payload("key");
  put.add_origins("https://api.example");
  (*put.mutable_labels())["origins"] = "https://api.example";
  Caller ada = Broker("corp:ada");
  ada.passport->purpose = Passport::Purpose::kLink;
  ASSERT_THAT(harness_->vault->Put(ada, put), IsOk());
  *put.mutable_record() = Name(v1::ORG, "default", "credential", "crd_1");
  ASSERT_THAT(harness_->vault->Put(Registry(), put), IsOk());

  const Holding own = Has("credential", "crd_1");
  EXPECT_EQ(Count(own, With(own, "origins", {"https://other.example"})), "1 1");
}

TEST_P(UserCountTest, AHundredThousandUsersAreNotAllLookedAt) {
  Link("corp:zoe", {}, "app_2");  // Somebody's key: an empty vault is sealed.
  AddRows(UserCount::kMaxRecords + 500);
  const Holding app = Has("connection", "app_1");
  EXPECT_EQ(Count(app, With(app, "scope", {"write"})), "20000 10000+");
  EXPECT_EQ(Count(Every(app)), "20000 0+");
}

TEST_P(UserCountTest, LessThanALimitIsCountedExactly) {
  Link("corp:zoe", {}, "app_2");
  AddRows(2 * UserCount::kPage);
  EXPECT_EQ(Count(Has("connection", "app_1")), "2000 0");
  EXPECT_EQ(Count(Every(Has("connection", "app_1"))), "2000 0");
}

TEST_P(UserCountTest, ACountGoesByItsIndex) {
  if (GetParam() != SqlDialect::kSqlite) GTEST_SKIP() << "PostgreSQL decides by its statistics";
  const std::map<std::string, std::string> queries = {
      {"record_users",
       "SELECT r.rid, o.head FROM record r LEFT JOIN record o ON o.owner_type = r.owner_type AND "
       "o.owner_id = r.owner_id AND o.kind = 'connection' AND o.name = 'b' WHERE r.owner_type = 'user' AND "
       "r.kind = 'connection' AND r.name = 'a' AND r.rid > 'x' ORDER BY r.rid LIMIT 10"},
      {"record_app",
       "SELECT rid, owner_id, state FROM record WHERE kind = 'connection' AND app_uid = 'a' AND head <> 0 AND "
       "rid > 'x' ORDER BY rid LIMIT 10"}};
  for (const auto& [index, query] : queries) {
    ASSERT_THAT(harness_->database->Read([&](Transaction& tx) -> absl::Status {
      const auto plan = tx.Query(absl::StrCat("EXPLAIN QUERY PLAN ", query));
      if (!plan.ok()) return plan.status();
      std::string text;
      for (const Row& row : *plan) absl::StrAppend(&text, row.Text("detail"), "\n");
      EXPECT_THAT(text, ::testing::HasSubstr(index));
      EXPECT_THAT(text, ::testing::Not(::testing::HasSubstr("SCAN")));
      EXPECT_THAT(text, ::testing::Not(::testing::HasSubstr("TEMP B-TREE")));
      return absl::OkStatus();
    }),
                IsOk());
  }
}

TEST_P(UserCountTest, OnlyAdministratorsByWayOfTheRegistryLearnNumbers) {
  Link("corp:ada", {{"scope", "read"}});
  v1::CountUsersRequest request;
  *request.mutable_has() = Has("connection", "app_1");
  Caller call = Administrator();
  call.passport->purpose = Passport::Purpose::kCall;
  Caller broker = Administrator();
  broker.service = "token_broker";
  for (const Caller& caller : {Registry(), For("registry", "corp:ada"), Administrator("auditor"), call, broker}) {
    EXPECT_THAT(harness_->vault->CountUsers(caller, request), StatusIs(absl::StatusCode::kPermissionDenied));
  }
  EXPECT_THAT(harness_->vault->CountUsers(Administrator("credential-admin"), request), IsOk());
  // Nor of what is no concern of users.
  for (const char* kind : {"signing_key", "link_flow", "app_secret", "nonsense"}) {
    request.mutable_has()->set_kind(kind);
    EXPECT_EQ(ReasonOf(harness_->vault->CountUsers(Administrator(), request).status()), "caller_not_allowed");
  }
  *request.mutable_has() = Has("connection", "app_1");
  *request.mutable_lacks() = Has("signing_key", "k");
  EXPECT_THAT(harness_->vault->CountUsers(Administrator(), request), StatusIs(absl::StatusCode::kPermissionDenied));
}

TEST_P(UserCountTest, WhatIsMalformedIsRefused) {
  EXPECT_THAT(Count(Has("connection", "")), ::testing::HasSubstr("has"));
  EXPECT_THAT(Count(Has("connection", "a"), Has("connection", "")), ::testing::HasSubstr("lacks"));
  Holding many = Has("connection", "a");
  for (int i = 0; i < 5; ++i) many = With(many, "scope", {});
  EXPECT_THAT(Count(many), ::testing::HasSubstr("has.labels"));
  const Holding app = Has("connection", "a");
  EXPECT_THAT(Count(Every(Has("credential", "a"))), ::testing::HasSubstr("has.every_account"));
  EXPECT_THAT(Count(Every(With(app, "scope", {}))), ::testing::HasSubstr("has.every_account"));
  EXPECT_THAT(Count(Every(app), app), ::testing::HasSubstr("has.every_account"));
  EXPECT_THAT(Count(app, Every(app)), ::testing::HasSubstr("lacks.every_account"));
}

}  // namespace
}  // namespace sallyport::vault
