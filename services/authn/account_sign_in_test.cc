// SPDX-License-Identifier: Apache-2.0
#include "services/authn/account_sign_in.h"

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/error.h"
#include "services/authn/errors.h"
#include "services/authn/platforms/platform_callers_testing.h"
#include "tests/testing/status_matchers.h"

namespace sallyport::authn {
namespace {

using platforms::LoopbackAllowed;
using ::sallyport::testing::IsOk;
using ::sallyport::testing::StatusIs;
using ::testing::ElementsAre;
using Code = absl::StatusCode;

constexpr char kHere[] = "192.0.2.1";
constexpr char kAdmin[] = "sallyport:service-account:main:ops/admin";

class AccountSignInTest : public platforms::PlatformCallersTest {
 protected:
  AccountSignInTest() {
    config_.mutable_roles()->add_admin_service_accounts("main:ops/admin");
    config_.mutable_roles()->add_credential_admin_service_accounts("ops/admin");
    config_.mutable_roles()->add_auditor_service_accounts("main:ops/auditor");
    Make();
    EXPECT_THAT(ValidateRoleAccounts(config_), IsOk());
    MakeSignIn();
  }
  void MakeSignIn() {
    policy_ = std::make_unique<RolePolicy>(config_.roles(), names_, "main");
    auto clusters = platforms::Clusters::Create(config_.kubernetes(), LoopbackAllowed());
    EXPECT_THAT(clusters, IsOk());
    sign_in_ = std::make_unique<AccountSignIn>(*std::move(clusters), AccountSignIn::Parts{*policy_, tokens_, audit_});
  }
  std::string TokenOf(const std::string& name) { return cluster_.TokenOf(clock_.Now(), "ops", name); }
  absl::StatusOr<MintedToken> Redeem(const std::string& token, const std::string& address = kHere) {
    return sign_in_->Redeem(token, address, clock_.Now());
  }
  // Who an API token is now, by the roles of the configuration.
  absl::StatusOr<Authenticator::ApiCaller> WhoIs(const std::string& token) {
    const Authenticator authenticator(
        Authenticator::Parts{servers_, *connectors_, jwks_, tokens_, grants_, revocations_, *policy_, passports_});
    return authenticator.AuthenticateApi(token, clock_.Now());
  }

  std::unique_ptr<RolePolicy> policy_;
  std::unique_ptr<AccountSignIn> sign_in_;
};

TEST_F(AccountSignInTest, AConfiguredAccountGetsATokenWithTheRolesOfTheConfiguration) {
  ASSERT_OK_AND_ASSIGN(const MintedToken minted, Redeem(TokenOf("admin") + "\n"));

  ASSERT_OK_AND_ASSIGN(const auto caller, WhoIs(minted.token));
  EXPECT_EQ(caller.identity.subject, kAdmin);
  EXPECT_THAT(caller.roles, ElementsAre("credential-admin", "admin"));
}

TEST_F(AccountSignInTest, AnAuditorIsNoAdministrator) {
  ASSERT_OK_AND_ASSIGN(const MintedToken minted, Redeem(TokenOf("auditor")));
  ASSERT_OK_AND_ASSIGN(const auto caller, WhoIs(minted.token));
  EXPECT_THAT(caller.roles, ElementsAre("auditor"));
}

TEST_F(AccountSignInTest, TheTokenEndsWithTheAccounts) {
  const std::string token = cluster_.Token(clock_.Now(), {{"sub", "system:serviceaccount:ops:admin"},
                                                          {"kubernetes.io", nullptr},
                                                          {"exp", absl::ToUnixSeconds(clock_.Now()) + 60}});
  ASSERT_OK_AND_ASSIGN(const MintedToken minted, Redeem(token));
  EXPECT_LE(minted.expires_at, clock_.Now() + absl::Seconds(60));
  clock_.Advance(absl::Seconds(61));
  EXPECT_THAT(WhoIs(minted.token), StatusIs(Code::kUnauthenticated));
}

TEST_F(AccountSignInTest, ATokenOfAYearGivesAnHour) {
  const std::string token = cluster_.Token(clock_.Now(), {{"sub", "system:serviceaccount:ops:admin"},
                                                          {"kubernetes.io", nullptr},
                                                          {"exp", absl::ToUnixSeconds(clock_.Now()) + 365 * 86400}});
  ASSERT_OK_AND_ASSIGN(const MintedToken minted, Redeem(token));
  EXPECT_LE(minted.expires_at, clock_.Now() + absl::Hours(1));
}

TEST_F(AccountSignInTest, AnAccountThatLostItsRolesLosesItsTokens) {
  ASSERT_OK_AND_ASSIGN(const MintedToken minted, Redeem(TokenOf("admin")));
  config_.clear_roles();
  MakeSignIn();
  EXPECT_EQ(ReasonOf(WhoIs(minted.token).status()), "revoked");
}

TEST_F(AccountSignInTest, RevokingTheAccountsSubjectEndsItsTokens) {
  ASSERT_OK_AND_ASSIGN(const MintedToken minted, Redeem(TokenOf("admin")));
  ASSERT_THAT(revocations_.RevokeSubject(kAdmin, clock_.Now()), IsOk());
  EXPECT_EQ(ReasonOf(WhoIs(minted.token).status()), "revoked");
}

TEST_F(AccountSignInTest, TheTokenIsNoneForServers) {
  ASSERT_OK_AND_ASSIGN(const MintedToken minted, Redeem(TokenOf("admin")));
  EXPECT_THAT(tokens_.VerifyMcp(minted.token, "inter", "srv_inter", clock_.Now()), StatusIs(Code::kUnauthenticated));
}

// All are told the same: a stranger must not learn which accounts there are.
TEST_F(AccountSignInTest, WhateverIsWrongIsRefusedInTheSameWords) {
  const absl::Time now = clock_.Now();
  const platforms::TestCluster stranger(cluster_.issuer());
  const std::string message(ServiceAccountRefused().message());
  const std::vector<std::pair<const char*, std::string>> cases = {
      {"an account without a role", TokenOf("nobody")},
      {"a platform's account", cluster_.Token(now)},
      {"another namespace", cluster_.TokenOf(now, "other", "admin")},
      {"another key", stranger.TokenOf(now, "ops", "admin")},
      {"another audience", cluster_.Token(now, {{"sub", "system:serviceaccount:ops:admin"},
                                                {"kubernetes.io", nullptr},
                                                {"aud", {"https://kubernetes.default.svc"}}})},
      {"ended",
       cluster_.Token(now - absl::Hours(1), {{"sub", "system:serviceaccount:ops:admin"}, {"kubernetes.io", nullptr}})},
      {"claims that disagree", cluster_.Token(now, {{"sub", "system:serviceaccount:ops:admin"}})},
      {"one of the gateway's own", tokens_.MintApi({kBootstrapSubject, kCliClientId, "", {"admin"}}, now)->token},
      {"no token", "hunter2"},
      {"nothing", ""}};
  int address = 0;
  for (const auto& [name, token] : cases) {
    const absl::Status refused = Redeem(token, absl::StrCat("198.51.100.", ++address)).status();
    EXPECT_THAT(refused, StatusIs(Code::kUnauthenticated)) << name;
    EXPECT_EQ(ReasonOf(refused), "service_account_refused") << name;
    EXPECT_EQ(refused.message(), message) << name;
  }
}

TEST_F(AccountSignInTest, AttemptsFromAnAddressAreLimitedWithoutKeepingOthersOut) {
  for (int i = 0; i < 5; ++i) EXPECT_THAT(Redeem("wrong"), StatusIs(Code::kUnauthenticated));
  const absl::Status limited = Redeem(TokenOf("admin")).status();
  EXPECT_THAT(limited, StatusIs(Code::kResourceExhausted));
  EXPECT_GT(DetailOf(limited).retry_after, absl::ZeroDuration());
  EXPECT_THAT(Redeem(TokenOf("admin"), "192.0.2.2"), IsOk());
}

TEST_F(AccountSignInTest, AClusterThatCannotBeAskedRefusesNobodyForGood) {
  config_.mutable_kubernetes(0)->set_token_review_url("http://127.0.0.1:9");
  MakeSignIn();
  const absl::Status status = Redeem(TokenOf("admin")).status();
  EXPECT_THAT(status, StatusIs(Code::kUnavailable));
  EXPECT_GT(DetailOf(status).retry_after, absl::ZeroDuration());
  EXPECT_EQ(std::string(status.message()).find("127.0.0.1"), std::string::npos)
      << "where it is, is nothing for strangers";
}

TEST_F(AccountSignInTest, SignInsAndRefusalsAreAudited) {
  ASSERT_THAT(Redeem(TokenOf("admin")), IsOk());
  ASSERT_THAT(Redeem(TokenOf("nobody")), StatusIs(Code::kUnauthenticated));

  const std::vector<audit::v1::Event> events = Events();
  ASSERT_EQ(events.size(), 2U);
  EXPECT_EQ(events[0].type(), "service_account.signed_in");
  EXPECT_EQ(events[0].subject(), kAdmin);
  EXPECT_EQ(events[0].decision(), audit::v1::DECISION_ALLOWED);
  EXPECT_EQ(events[0].client_address(), kHere);
  EXPECT_EQ(events[1].decision(), audit::v1::DECISION_DENIED);
  EXPECT_EQ(events[1].subject(), "") << "nobody has vouched for it";
  EXPECT_EQ(events[1].rule(), "unknown_account");
}

TEST(ValidateRoleAccountsTest, NamesWhatIsWrong) {
  config::v1::AuthnConfig config;
  config.mutable_roles()->add_admin_service_accounts("main:ops/admin");
  EXPECT_THAT(ValidateRoleAccounts(config), StatusIs(Code::kInvalidArgument, "roles.adminServiceAccounts[0]"));
  config.add_kubernetes()->set_id("main");
  EXPECT_THAT(ValidateRoleAccounts(config), IsOk());
  config.mutable_roles()->add_auditor_service_accounts("other:ops/admin");
  EXPECT_THAT(ValidateRoleAccounts(config), StatusIs(Code::kInvalidArgument, "there is no cluster \"other\""));
  config.mutable_roles()->set_auditor_service_accounts(0, "ops");
  EXPECT_THAT(ValidateRoleAccounts(config), StatusIs(Code::kInvalidArgument, "roles.auditorServiceAccounts[0]"));
  config.mutable_roles()->clear_auditor_service_accounts();
  config.add_platforms()->add_service_accounts("ops/admin");
  EXPECT_THAT(ValidateRoleAccounts(config), StatusIs(Code::kInvalidArgument, "is a platform's"));
}

}  // namespace
}  // namespace sallyport::authn
