// SPDX-License-Identifier: Apache-2.0
#include "services/authn/identities.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/sql/config.h"
#include "common/status_macros.h"
#include "services/authn/authn_testing.h"
#include "services/authn/grants.h"
#include "services/authn/identity_codec.h"

namespace sallyport::authn {
namespace {

using ::sallyport::testing::IsOk;
using ::testing::ElementsAre;

// A database as the release before left it.
class IdentityMigrationTest : public ::testing::TestWithParam<SqlDialect> {
 protected:
  void SetUp() override {
    config::v1::Database config;
    if (GetParam() == SqlDialect::kPostgresql) {
      ASSERT_OK_AND_ASSIGN(const std::string connection, testing::TestPostgres::CreateDatabase());
      config.set_postgresql(connection);
    } else {
      config.set_sqlite(directory_.path() + "/authn.db");
    }
    ASSERT_OK_AND_ASSIGN(Database::Options options, DatabaseOptionsFrom(config, clock_));
    ASSERT_OK_AND_ASSIGN(database_, Database::Open(std::move(options)));
    std::vector<Migration> before = AuthnMigrations();
    before.resize(3);
    ASSERT_THAT(database_->Migrate(before), IsOk());
  }
  static Identity Ann(const std::vector<std::string>& groups, const std::string& issuer = "https://idp.example") {
    Identity ann;
    ann.subject = "corp:ann";
    ann.connector = "corp";
    ann.issuer = issuer;
    ann.groups = groups;
    return ann;
  }
  void AddSession(const std::string& id, const Identity& user, absl::Time at) {
    EXPECT_THAT(database_->Write([&](Transaction& tx) {
      return tx
          .Exec(
              "INSERT INTO sessions (cookie_hash, id, subject, identity, created_at, expires_at) VALUES (:id, :id,"
              " :subject, :identity, :at, :end)",
              {{"id", id},
               {"subject", user.subject},
               {"identity", EncodeIdentity(user)},
               {"at", at},
               {"end", at + absl::Hours(12)}})
          .status();
    }),
                IsOk());
  }
  void AddGrant(const std::string& id, const Identity& user, absl::Time at) {
    EXPECT_THAT(database_->Write([&](Transaction& tx) {
      return tx
          .Exec(
              "INSERT INTO grants (id, subject, identity, client_id, resource, server_uid, scope, created_at,"
              " expires_at) VALUES (:id, :subject, :identity, 'clt_a', 'r', 'srv_a', 'mcp', :at, :end)",
              {{"id", id},
               {"subject", user.subject},
               {"identity", EncodeIdentity(user)},
               {"at", at},
               {"end", at + absl::Hours(700)}})
          .status();
    }),
                IsOk());
  }

  FakeClock clock_;
  TempDirectory directory_;
  std::unique_ptr<Database> database_;
};
INSTANTIATE_ENGINES(IdentityMigrationTest);

TEST_P(IdentityMigrationTest, TheNewestOfWhatWasKnownHoldsForAll) {
  const absl::Time now = clock_.Now();
  AddGrant("grn_1", Ann({"admins"}), now - absl::Hours(50));
  AddSession("ses_1", Ann({"staff"}), now - absl::Hours(1));
  AddGrant("grn_2", Ann({"admins", "staff"}), now - absl::Hours(2));
  Identity bob = Ann({"guests"});
  bob.subject = "corp:bob";
  AddGrant("grn_bob", bob, now);
  AddGrant("grn_bob2", bob, now);  // Two of one moment are no fault.

  ASSERT_THAT(database_->Migrate(AuthnMigrations()), IsOk());

  const Grants grants(*database_);
  for (const char* id : {"grn_1", "grn_2"}) {
    ASSERT_OK_AND_ASSIGN(const Grant grant, grants.Find(id));
    EXPECT_FALSE(grant.revoked);
    EXPECT_THAT(grant.user.groups, ElementsAre("staff")) << id;
  }
  ASSERT_OK_AND_ASSIGN(const Grant of_bob, grants.Find("grn_bob"));
  EXPECT_THAT(of_bob.user.groups, ElementsAre("guests"));
}

TEST_P(IdentityMigrationTest, GrantsOfAFormerIssuerStayWithItsUsers) {
  const absl::Time now = clock_.Now();
  AddGrant("grn_former", Ann({"staff"}, "https://former.example"), now - absl::Hours(5));
  AddGrant("grn_new", Ann({"staff", "admins"}), now - absl::Hours(1));
  ASSERT_THAT(database_->Migrate(AuthnMigrations()), IsOk());

  const Grants grants(*database_);
  ASSERT_OK_AND_ASSIGN(const Grant former, grants.Find("grn_former"));
  EXPECT_TRUE(former.revoked);
  EXPECT_TRUE(former.user.groups.empty());
  ASSERT_OK_AND_ASSIGN(const Grant present, grants.Find("grn_new"));
  EXPECT_FALSE(present.revoked);
}

}  // namespace
}  // namespace sallyport::authn
