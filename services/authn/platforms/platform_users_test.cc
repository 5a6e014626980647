// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "services/authn/platforms/platform_callers.h"
#include "services/authn/platforms/platform_callers_testing.h"
#include "tests/testing/status_matchers.h"

namespace sallyport::authn::platforms {
namespace {

using ::sallyport::testing::IsOk;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class PlatformUsersTest : public PlatformCallersTest {};

TEST_F(PlatformUsersTest, APassportIsForThisPlatformThisUserAndTheseApps) {
  Make();
  ASSERT_OK_AND_ASSIGN(
      const auto response,
      Call(For(ByCertificate(kChatUri),
               AnnsToken({{"groups", {"team", "elsewhere"}}, {"email", "ann@x.example"}, {"azp", "bot"}}))));
  EXPECT_THAT(response.apps(), ElementsAre("calendar", "code", "mail"));
  EXPECT_EQ(response.principal().subject(), "corp:ann");
  EXPECT_EQ(response.principal().token_kind(), v1::CONNECTOR_ACCESS);
  EXPECT_THAT(response.principal().roles(), IsEmpty());
  ASSERT_OK_AND_ASSIGN(const Passport passport, verifier_.Verify(response.passport(), clock_.Now()));
  EXPECT_EQ(passport.purpose, Passport::Purpose::kPlatform);
  EXPECT_EQ(passport.actor, "chat");
  EXPECT_EQ(passport.subject, "corp:ann");
  EXPECT_EQ(passport.email, "ann@x.example");
  EXPECT_EQ(passport.client_id, "bot");
  EXPECT_THAT(passport.groups, ElementsAre("corp:team")) << "those that something names";
  EXPECT_THAT(passport.apps, ElementsAre("calendar", "code", "mail"));
  EXPECT_THAT(passport.server_uid, IsEmpty());
  EXPECT_EQ(passport.expires_at, clock_.Now() + absl::Minutes(5));
}

TEST_F(PlatformUsersTest, APassportHasNoRolesWhateverItsUserMay) {
  Make();
  ASSERT_OK_AND_ASSIGN(const auto response, Call(For(ByCertificate(kChatUri), AnnsToken({{"groups", {"admins"}}}))));
  EXPECT_THAT(response.apps(), ElementsAre("*")) << "every app is all there are";
  EXPECT_THAT(verifier_.Verify(response.passport(), clock_.Now())->roles, IsEmpty());
  EXPECT_THAT(response.principal().roles(), IsEmpty());
}

TEST_F(PlatformUsersTest, AUserWhomNoGrantCoversIsNotAnswered) {
  Make();
  const auto carl = [&](const nlohmann::json& change) {
    nlohmann::json claims = change;
    claims["sub"] = "carl";
    return Said(For(ByCertificate(kChatUri), AnnsToken(claims)));
  };
  EXPECT_THAT(carl(nlohmann::json::object()), HasSubstr("platform_not_granted |"));
  EXPECT_THAT(carl({{"groups", {"teams"}}}), HasSubstr("platform_not_granted |"));
  EXPECT_THAT(carl({{"groups", {"corp:team"}}}), HasSubstr("platform_not_granted |")) << "a group of that very name";
  EXPECT_THAT(carl({{"hasgroups", true}}), HasSubstr("too many"));
  EXPECT_THAT(Call(For(ByCertificate(kNightUri), OurToken())), IsOk()) << "who may name Ann may bring her token";
  config_.mutable_platforms(0)->clear_grants();
  Make();
  EXPECT_THAT(Said(For(ByCertificate(kChatUri), AnnsToken())), HasSubstr("platform_not_granted |"));
}

TEST_F(PlatformUsersTest, AGrantThatNamesNobodyIsForEverybody) {
  config_.mutable_platforms(0)->clear_grants();
  config_.mutable_platforms(0)->add_grants()->add_apps("mail");
  Make();
  EXPECT_THAT(Call(For(ByCertificate(kChatUri), AnnsToken({{"sub", "carl"}})))->apps(), ElementsAre("mail"));
  EXPECT_THAT(Said(Naming(ByCertificate(kChatUri), "corp:ann")), HasSubstr("platform_not_granted |"));
}

TEST_F(PlatformUsersTest, AConnectorsTokenIsOneForThePlatform) {
  Make();
  const int64_t now = absl::ToUnixSeconds(clock_.Now());
  const auto said = [&](const nlohmann::json& change, absl::string_view typ = "at+jwt") {
    return Said(For(ByCertificate(kChatUri), AnnsToken(change, typ)));
  };
  EXPECT_THAT(said({{"aud", "api://mcp"}}), HasSubstr("subject_token_invalid | the subject token was not accepted: "
                                                      "wrong_audience"));
  EXPECT_THAT(said({{"aud", "api://chat/"}}), HasSubstr("wrong_audience"));
  EXPECT_THAT(said({{"aud", nullptr}}), HasSubstr("wrong_audience"));
  EXPECT_THAT(said({{"iss", "https://idp.example/"}}), HasSubstr("wrong_issuer"));
  EXPECT_THAT(said({{"exp", now}}), HasSubstr("expired"));
  EXPECT_THAT(said({{"nonce", "x"}}), HasSubstr("wrong_type")) << "an ID token";
  EXPECT_THAT(said(nlohmann::json::object(), "id+jwt"), HasSubstr("wrong_type"));
  EXPECT_THAT(said({{"sub", nullptr}}), HasSubstr("bad_subject"));
  EXPECT_THAT(Said(For(ByCertificate(kChatUri), TestIssuer(kIssuer).Token(clock_.Now(), {{"aud", "api://chat"}}))),
              HasSubstr("unknown_key"));
  EXPECT_THAT(Said(For(ByCertificate(kChatUri), "")), HasSubstr("missing_token"));
  EXPECT_THAT(Said(For(ByCertificate(kChatUri), "x.y.z")), HasSubstr("malformed_token"));
  EXPECT_THAT(Said(For(ByCertificate(kChatUri), std::string(kMaxTokenBytes + 1, 'a'))), HasSubstr("token_too_long"));
  const std::string good = AnnsToken();
  const std::string none = absl::StrCat(Base64UrlEncode(R"({"alg":"none"})"),
                                        good.substr(good.find('.'), good.rfind('.') - good.find('.')), ".AA");
  EXPECT_THAT(Said(For(ByCertificate(kChatUri), none)), HasSubstr("algorithm"));
  EXPECT_THAT(Said(For(ByCertificate(kChatUri), cluster_.Token(clock_.Now()))), HasSubstr("wrong_issuer"))
      << "a platform is no user";
  EXPECT_THAT(Said(For(ByCertificate(kNightUri), good)), HasSubstr("wrong_audience"))
      << "no audience is configured: no such token is taken, not every one";
}

TEST_F(PlatformUsersTest, TheAnswerEndsWithTheUsersToken) {
  Make();
  const int64_t exp = absl::ToUnixSeconds(clock_.Now()) + 40;
  ASSERT_OK_AND_ASSIGN(const auto response, Call(For(ByCertificate(kChatUri), AnnsToken({{"exp", exp}}))));
  EXPECT_EQ(response.valid_until().seconds(), exp);
  EXPECT_EQ(response.principal().expires_at().seconds(), exp);
}

TEST_F(PlatformUsersTest, ATokenOfARevokedUserCountsNoMore) {
  Make();
  const std::string token = AnnsToken();
  ASSERT_THAT(Call(For(ByCertificate(kChatUri), token)), IsOk());
  clock_.Advance(absl::Seconds(5));
  ASSERT_THAT(revocations_.RevokeSubject("corp:ann", clock_.Now()), IsOk());
  EXPECT_THAT(Said(For(ByCertificate(kChatUri), token)), HasSubstr("revoked"));
  EXPECT_THAT(Call(Naming(ByCertificate(kNightUri), "corp:ann")), IsOk())
      << "what was is ended; there is no connection any more to be found";
  clock_.Advance(absl::Seconds(5));
  EXPECT_THAT(Call(For(ByCertificate(kChatUri), AnnsToken())), IsOk()) << "she was let in again";
}

TEST_F(PlatformUsersTest, ATokenOfOursIsGoodWhileItsGrantIs) {
  Make();
  Grant grant;
  const std::string token = OurToken(&grant);
  ASSERT_OK_AND_ASSIGN(const auto response, Call(For(ByCertificate(kChatUri), token)));
  EXPECT_EQ(response.session_id(), grant.id);
  EXPECT_EQ(response.principal().token_kind(), v1::SALLYPORT);
  EXPECT_EQ(response.principal().email(), "ann@x.example") << "as the sign-in said";
  EXPECT_THAT(response.apps(), ElementsAre("calendar", "code", "mail"));
  EXPECT_EQ(verifier_.Verify(response.passport(), clock_.Now())->session_id, grant.id);

  const std::string other = OurToken();
  ASSERT_OK_AND_ASSIGN(const AccessToken parsed, tokens_.VerifyForRevocation(other));
  ASSERT_THAT(revocations_.RevokeToken(parsed.jti, other, parsed.expires_at, clock_.Now()), IsOk());
  EXPECT_THAT(Said(For(ByCertificate(kChatUri), other)), HasSubstr("subject_token_invalid"));
  ASSERT_THAT(grants_.Revoke(grant.id, clock_.Now()), IsOk());
  EXPECT_THAT(Said(For(ByCertificate(kChatUri), token)), HasSubstr("accepted: revoked"));
  const std::string late = OurToken();
  clock_.Advance(absl::Hours(1));
  EXPECT_THAT(Said(For(ByCertificate(kChatUri), late)), HasSubstr("expired"));
}

TEST_F(PlatformUsersTest, OnlyTokensForMcpServersAreOursToTake) {
  Make();
  ASSERT_OK_AND_ASSIGN(const MintedToken api,
                       tokens_.MintApi({kBootstrapSubject, kCliClientId, "", {"admin"}}, clock_.Now()));
  EXPECT_THAT(Said(For(ByCertificate(kChatUri), api.token)), HasSubstr("wrong_audience"));
  ASSERT_OK_AND_ASSIGN(const MintedToken gone,
                       tokens_.MintMcp({"corp:ann", "client", "grn_1", "gone", "srv_gone"}, clock_.Now()));
  EXPECT_THAT(Said(For(ByCertificate(kChatUri), gone.token)), HasSubstr("wrong_server"));
  ASSERT_OK_AND_ASSIGN(const MintedToken unknown,
                       tokens_.MintMcp({"corp:ann", "client", "grn_1", "inter", "srv_inter"}, clock_.Now()));
  EXPECT_THAT(Said(For(ByCertificate(kChatUri), unknown.token)), HasSubstr("revoked")) << "there is no such grant";
  // Passports are signed with the same keys.
  ASSERT_OK_AND_ASSIGN(const auto admitted, Call(For(ByCertificate(kChatUri), AnnsToken())));
  EXPECT_THAT(Said(For(ByCertificate(kChatUri), admitted.passport())), HasSubstr("wrong_type"));
  EXPECT_THAT(Said(ByAccount(admitted.passport())), HasSubstr("platform_unknown |"));
}

TEST_F(PlatformUsersTest, ASubjectIsNamedOnlyByAGrantForThat) {
  Make();
  ASSERT_OK_AND_ASSIGN(const auto response, Call(Naming(ByCertificate(kNightUri), "corp:ann")));
  EXPECT_THAT(response.apps(), ElementsAre("mail"));
  EXPECT_THAT(response.session_id(), IsEmpty());
  ASSERT_OK_AND_ASSIGN(const Passport passport, verifier_.Verify(response.passport(), clock_.Now()));
  EXPECT_EQ(passport.subject, "corp:ann");
  EXPECT_EQ(passport.actor, "night");
  EXPECT_THAT(passport.groups, IsEmpty());
  EXPECT_EQ(passport.expires_at, clock_.Now() + absl::Minutes(5));
  EXPECT_THAT(Call(Naming(ByCertificate(kNightUri), "local:bob")), IsOk());

  EXPECT_THAT(Said(Naming(ByCertificate(kChatUri), "corp:ann")), HasSubstr("platform_not_granted |"))
      << "its grants need the user";
  for (const char* subject :
       {"corp:carl", "corp:Ann", "corp:ann ", " corp:ann", "corp:", "corp", "", ":ann", "ann", "other:ann",
        "corp:ann\n", "local:gone", "server-x:https://idp.example|ann", "sallyport:admin-token", "*"}) {
    EXPECT_EQ(Said(Naming(ByCertificate(kNightUri), subject)),
              "platform_not_granted | no grant of the platform covers this user")
        << subject;
  }
}

TEST_F(PlatformUsersTest, EveryUserMayBeNamedWhereAGrantSaysSo) {
  auto& grant = *config_.mutable_platforms(1)->mutable_grants(0);
  grant.clear_users();
  Make();
  EXPECT_THAT(Call(Naming(ByCertificate(kNightUri), "corp:carl")), IsOk());
  EXPECT_THAT(Call(Naming(ByCertificate(kNightUri), "local:bob")), IsOk());
  for (const char* subject : {"local:gone", "other:ann", "corp:", "sallyport:admin-token", "server-x:y"}) {
    EXPECT_THAT(Said(Naming(ByCertificate(kNightUri), subject)), HasSubstr("platform_not_granted |")) << subject;
  }
}

TEST_F(PlatformUsersTest, AGroupIsNotBelievedOfAUserWhoIsNotThere) {
  auto& grant = *config_.mutable_platforms(1)->mutable_grants(0);
  grant.add_groups("team");
  Make();
  EXPECT_THAT(Call(Naming(ByCertificate(kNightUri), "corp:ann")), IsOk());
  EXPECT_THAT(Said(Naming(ByCertificate(kNightUri), "corp:carl")), HasSubstr("platform_not_granted |"));
}

}  // namespace
}  // namespace sallyport::authn::platforms
