// SPDX-License-Identifier: Apache-2.0
#include "common/caller/passport.h"

#include <gtest/gtest.h>

#include "common/error.h"
#include "common/jose/jwt.h"
#include "common/text/json.h"
#include "tests/testing/status_matchers.h"

namespace sallyport {
namespace {

using ::sallyport::testing::IsOk;
using ::sallyport::testing::StatusIs;
using Code = absl::StatusCode;

constexpr char kIssuer[] = "https://gw.example.com";
const absl::Time kNow = absl::FromUnixSeconds(1'800'000'000);

// What authn would answer; shared with the test after the verifier took the source.
struct Authn {
  absl::StatusOr<std::string> answer = absl::UnavailableError("authn is down");
  int fetches = 0;
};

class FakeKeySource final : public PassportKeySource {
 public:
  explicit FakeKeySource(Authn& authn) : authn_(authn) {}
  absl::StatusOr<std::string> FetchJwks() override {
    ++authn_.fetches;
    return authn_.answer;
  }

 private:
  Authn& authn_;
};

PrivateKey NewKey() { return *PrivateKey::GenerateP256(); }
std::string JwksOf(const PrivateKey& key) { return JwkSet({key.public_key()}).ToJson(); }

class PassportTest : public ::testing::Test {
 protected:
  PassportTest() : verifier_(kIssuer, std::make_unique<FakeKeySource>(authn_)) { authn_.answer = JwksOf(key_); }

  static Passport Ada() {
    Passport passport;
    passport.subject = "corp:ada";
    passport.purpose = Passport::Purpose::kApi;
    return passport;
  }
  // Claims of a good passport, to be spoiled.
  static nlohmann::json Claims() {
    return {{"iss", kIssuer},   {"aud", "sallyport-internal"},      {"sub", "corp:ada"},
            {"purpose", "api"}, {"iat", absl::ToUnixSeconds(kNow)}, {"exp", absl::ToUnixSeconds(kNow) + 300}};
  }
  absl::Status VerifyClaims(const nlohmann::json& claims, const char* typ = kPassportType) {
    return verifier_.Verify(*SignJwt(claims, typ, key_), kNow).status();
  }

  Authn authn_;
  PrivateKey key_ = NewKey();
  PassportVerifier verifier_;
};

TEST_F(PassportTest, EveryFieldSurvivesTheJwt) {
  Passport sent = Ada();
  sent.session_id = "ses_1";
  sent.email = "ada@example.com";
  sent.email_verified = true;
  sent.name = "Ada";
  sent.groups = {"dev", "ops"};
  sent.client_id = "cursor";
  sent.roles = {"admin"};
  sent.server_uid = "srv_1";
  sent.link_server_uids = {"srv_1", "srv_2"};
  sent.purpose = Passport::Purpose::kApi;

  ASSERT_OK_AND_ASSIGN(const std::string jwt, SignPassport(sent, kIssuer, key_, kNow));
  ASSERT_OK_AND_ASSIGN(const Passport got, verifier_.Verify(jwt, kNow));

  EXPECT_EQ(got.subject, "corp:ada");
  EXPECT_EQ(got.session_id, "ses_1");
  EXPECT_EQ(got.email, "ada@example.com");
  EXPECT_TRUE(got.email_verified);
  EXPECT_EQ(got.name, "Ada");
  EXPECT_EQ(got.groups, sent.groups);
  EXPECT_EQ(got.client_id, "cursor");
  EXPECT_TRUE(got.HasRole("admin"));
  EXPECT_FALSE(got.HasRole("credential-admin"));
  EXPECT_EQ(got.server_uid, "srv_1");
  EXPECT_EQ(got.link_server_uids, sent.link_server_uids);
  EXPECT_EQ(got.purpose, Passport::Purpose::kApi);
  EXPECT_EQ(got.issued_at, kNow);
  EXPECT_EQ(got.expires_at, kNow + absl::Minutes(5));
  EXPECT_EQ(got.jwt, jwt);
}

TEST(PassportRoleTest, CountsOnlyInPassportsForTheApi) {
  Passport passport;
  passport.roles = {"admin"};
  for (const auto purpose : {Passport::Purpose::kCall, Passport::Purpose::kLink, Passport::Purpose::kSignIn}) {
    passport.purpose = purpose;
    EXPECT_FALSE(passport.HasRole("admin")) << std::string(PurposeName(purpose));
  }
  passport.purpose = Passport::Purpose::kApi;
  EXPECT_TRUE(passport.HasRole("admin"));
}

TEST_F(PassportTest, ExpiresWithoutLeeway) {
  ASSERT_OK_AND_ASSIGN(const std::string jwt, SignPassport(Ada(), kIssuer, key_, kNow));
  EXPECT_THAT(verifier_.Verify(jwt, kNow + absl::Seconds(299)), IsOk());
  EXPECT_THAT(verifier_.Verify(jwt, kNow + absl::Minutes(5)), StatusIs(Code::kUnauthenticated, "expired"));
}

TEST_F(PassportTest, SigningCutsTheLifetime) {
  Passport greedy = Ada();
  greedy.expires_at = kNow + absl::Hours(1);
  ASSERT_OK_AND_ASSIGN(const std::string jwt, SignPassport(greedy, kIssuer, key_, kNow));
  ASSERT_OK_AND_ASSIGN(const Passport got, verifier_.Verify(jwt, kNow));
  EXPECT_EQ(got.expires_at, kNow + absl::Minutes(5));
}

TEST_F(PassportTest, SigningWithoutSubjectIsRefused) {
  EXPECT_THAT(SignPassport(Passport(), kIssuer, key_, kNow), StatusIs(Code::kInvalidArgument));
}

TEST_F(PassportTest, GoodClaimsAreAccepted) { EXPECT_THAT(VerifyClaims(Claims()), IsOk()); }

TEST_F(PassportTest, LongerLifeThanFiveMinutesIsRefused) {
  nlohmann::json claims = Claims();
  claims["exp"] = absl::ToUnixSeconds(kNow) + 306;
  EXPECT_THAT(VerifyClaims(claims), StatusIs(Code::kUnauthenticated, "lifetime"));
}

TEST_F(PassportTest, MissingTimesAreRefused) {
  for (const char* claim : {"exp", "iat"}) {
    nlohmann::json claims = Claims();
    claims.erase(claim);
    EXPECT_THAT(VerifyClaims(claims), StatusIs(Code::kUnauthenticated, "lifetime")) << claim;
  }
}

TEST_F(PassportTest, IssuedInTheFutureIsRefused) {
  nlohmann::json claims = Claims();
  claims["iat"] = absl::ToUnixSeconds(kNow) + 60;
  EXPECT_THAT(VerifyClaims(claims), StatusIs(Code::kUnauthenticated, "future"));
}

TEST_F(PassportTest, AnotherIssuerIsRefused) {
  nlohmann::json claims = Claims();
  claims["iss"] = "https://gw.example.com/";
  EXPECT_THAT(VerifyClaims(claims), StatusIs(Code::kUnauthenticated, "issuer"));
}

TEST_F(PassportTest, AnotherOrASecondAudienceIsRefused) {
  nlohmann::json claims = Claims();
  claims["aud"] = "https://gw.example.com/mcp/github";
  EXPECT_THAT(VerifyClaims(claims), StatusIs(Code::kUnauthenticated, "audience"));
  claims["aud"] = {"sallyport-internal", "x"};
  EXPECT_THAT(VerifyClaims(claims), StatusIs(Code::kUnauthenticated, "audience"));
}

TEST_F(PassportTest, AnAccessTokenIsNoPassport) {
  EXPECT_THAT(VerifyClaims(Claims(), "at+jwt"), StatusIs(Code::kUnauthenticated, "type"));
}

TEST_F(PassportTest, UnknownPurposeAndMissingSubjectAreRefused) {
  nlohmann::json claims = Claims();
  claims["purpose"] = "everything";
  EXPECT_THAT(VerifyClaims(claims), StatusIs(Code::kUnauthenticated, "purpose"));
  claims = Claims();
  claims["sub"] = "";
  EXPECT_THAT(VerifyClaims(claims), StatusIs(Code::kUnauthenticated, "subject"));
}

TEST_F(PassportTest, AForeignKeyIsRefused) {
  const PrivateKey foreign = NewKey();
  ASSERT_OK_AND_ASSIGN(const std::string jwt, SignPassport(Ada(), kIssuer, foreign, kNow));
  EXPECT_THAT(verifier_.Verify(jwt, kNow), StatusIs(Code::kUnauthenticated, "unknown key"));
}

TEST_F(PassportTest, AChangedPayloadIsRefused) {
  ASSERT_OK_AND_ASSIGN(std::string jwt, SignPassport(Ada(), kIssuer, key_, kNow));
  const size_t middle = jwt.find('.') + 10;
  jwt[middle] = jwt[middle] == 'A' ? 'B' : 'A';
  EXPECT_THAT(verifier_.Verify(jwt, kNow), StatusIs(Code::kUnauthenticated));
}

TEST_F(PassportTest, GarbageAndGiantsAreRefused) {
  EXPECT_THAT(verifier_.Verify("", kNow), StatusIs(Code::kUnauthenticated));
  EXPECT_THAT(verifier_.Verify("a.b.c", kNow), StatusIs(Code::kUnauthenticated));
  EXPECT_THAT(verifier_.Verify(std::string(25 << 10, 'a'), kNow), StatusIs(Code::kUnauthenticated, "too long"));
  EXPECT_EQ(authn_.fetches, 0);
}

TEST_F(PassportTest, WithoutKeysItIsUnavailableAndTriedAgainAfterASecond) {
  const std::string jwt = *SignPassport(Ada(), kIssuer, key_, kNow);
  const absl::StatusOr<std::string> good = authn_.answer;
  authn_.answer = absl::UnavailableError("authn is down");
  EXPECT_THAT(verifier_.Verify(jwt, kNow), StatusIs(Code::kUnavailable));
  EXPECT_THAT(verifier_.Verify(jwt, kNow + absl::Milliseconds(500)), StatusIs(Code::kUnavailable));
  EXPECT_EQ(authn_.fetches, 1);

  authn_.answer = good;
  EXPECT_THAT(verifier_.Verify(jwt, kNow + absl::Seconds(1)), IsOk());
}

TEST_F(PassportTest, UnknownKeysAreAskedForAtMostEveryTenSeconds) {
  ASSERT_THAT(verifier_.Verify(*SignPassport(Ada(), kIssuer, key_, kNow), kNow), IsOk());
  const PrivateKey rotated = NewKey();
  authn_.answer = JwksOf(rotated);
  const std::string jwt = *SignPassport(Ada(), kIssuer, rotated, kNow);

  EXPECT_THAT(verifier_.Verify(jwt, kNow + absl::Seconds(9)), StatusIs(Code::kUnauthenticated));
  EXPECT_EQ(authn_.fetches, 1);
  EXPECT_THAT(verifier_.Verify(jwt, kNow + absl::Seconds(10)), IsOk());
  EXPECT_EQ(authn_.fetches, 2);
}

TEST_F(PassportTest, KnownKeysGoOnWhileAuthnIsAway) {
  ASSERT_THAT(verifier_.Verify(*SignPassport(Ada(), kIssuer, key_, kNow), kNow), IsOk());
  authn_.answer = absl::UnavailableError("authn is down");
  const absl::Time later = kNow + absl::Minutes(6);
  EXPECT_THAT(verifier_.Verify(*SignPassport(Ada(), kIssuer, key_, later), later), IsOk());
  EXPECT_EQ(authn_.fetches, 2);
}

TEST_F(PassportTest, AWithdrawnKeyIsNoticedAfterFiveMinutes) {
  ASSERT_THAT(verifier_.Verify(*SignPassport(Ada(), kIssuer, key_, kNow), kNow), IsOk());
  authn_.answer = JwksOf(NewKey());
  const absl::Time later = kNow + absl::Minutes(6);
  EXPECT_THAT(verifier_.Verify(*SignPassport(Ada(), kIssuer, key_, later), later), StatusIs(Code::kUnauthenticated));
}

TEST_F(PassportTest, APlatformsNamesThePlatformAndItsApps) {
  Passport passport = Ada();
  passport.purpose = Passport::Purpose::kPlatform;
  EXPECT_THAT(SignPassport(passport, kIssuer, key_, kNow), StatusIs(Code::kInvalidArgument, "actor"));
  passport.actor = "chat";
  passport.apps = {"codehost", "mail"};
  passport.roles = {"admin"};
  const auto read = verifier_.Verify(*SignPassport(passport, kIssuer, key_, kNow), kNow);
  ASSERT_THAT(read, IsOk());
  EXPECT_EQ(read->purpose, Passport::Purpose::kPlatform);
  EXPECT_EQ(read->actor, "chat");
  EXPECT_EQ(read->apps, passport.apps);
  EXPECT_FALSE(read->HasRole("admin"));
}

TEST_F(PassportTest, WhatMayBeEndedIsNamed) {
  Passport passport = Ada();
  passport.purpose = Passport::Purpose::kEnd;
  EXPECT_THAT(SignPassport(passport, kIssuer, key_, kNow), StatusIs(Code::kInvalidArgument, "what it ends"));
  passport.end = {.subject = "corp:bob", .app_uid = "app1", .label = "work"};
  const auto read = verifier_.Verify(*SignPassport(passport, kIssuer, key_, kNow), kNow);
  ASSERT_THAT(read, IsOk());
  EXPECT_EQ(read->purpose, Passport::Purpose::kEnd);
  EXPECT_EQ(read->end, passport.end);
}

TEST(PassportPurposeTest, NamesAreTheWireFormat) {
  EXPECT_EQ(PurposeName(Passport::Purpose::kCall), "call");
  EXPECT_EQ(PurposeName(Passport::Purpose::kApi), "api");
  EXPECT_EQ(PurposeName(Passport::Purpose::kSignIn), "sign_in");
  EXPECT_EQ(PurposeName(Passport::Purpose::kPlatform), "platform");
  EXPECT_EQ(PurposeName(Passport::Purpose::kEnd), "end");
}

}  // namespace
}  // namespace sallyport
