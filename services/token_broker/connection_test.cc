// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/connection.h"

#include "absl/strings/str_cat.h"
#include <gtest/gtest.h>

#include "common/proto_time.h"
#include "common/text/base64url.h"

namespace sallyport::token_broker {
namespace {

constexpr size_t kVaultLimit = 64 << 10;
const absl::Time kNow = absl::FromUnixSeconds(1'800'000'000);

TokenAnswer Answer(size_t access, size_t refresh, size_t id) {
  TokenAnswer answer;
  answer.access_token = Secret(std::string(access, 'a'));
  answer.refresh_token = Secret(std::string(refresh, 'r'));
  answer.id_token = Secret(std::string(id, 'i'));
  answer.expires_in = absl::Hours(1);
  return answer;
}

// As a provider signs it; nobody here verifies.
Secret JwtWith(const std::string& claims) {
  return Secret(absl::StrCat(Base64UrlEncode(R"({"alg":"RS256"})"), ".", Base64UrlEncode(claims), ".c2ln"));
}

v1::TokenSet Old() {
  v1::TokenSet old;
  old.set_access_token("at0");
  old.set_refresh_token("rt0");
  old.set_id_token("it0");
  old.add_scopes("repo");
  *old.mutable_expires_at() = ToTimestamp(kNow + absl::Minutes(1));
  return old;
}

TEST(RenewedTest, WhatTheAnswerLeavesOutIsKept) {
  const v1::TokenSet tokens = Renewed(Old(), Answer(2, 0, 0), kNow);

  EXPECT_EQ(tokens.access_token(), "aa");
  EXPECT_EQ(tokens.refresh_token(), "rt0");
  EXPECT_EQ(tokens.id_token(), "it0");
  EXPECT_EQ(tokens.scopes(0), "repo");
  EXPECT_EQ(FromTimestamp(tokens.expires_at()), kNow + absl::Hours(1));
}

TEST(RenewedTest, WithoutAnAccessTokenTheOldOneHasExpired) {
  const v1::TokenSet tokens = Renewed(Old(), Answer(0, 3, 0), kNow);

  EXPECT_EQ(tokens.refresh_token(), "rrr");
  vault::v1::RecordMetadata metadata;
  metadata.set_head(2);
  const auto view = ViewOf(metadata, 2, tokens.SerializeAsString());
  ASSERT_TRUE(view.ok());
  EXPECT_FALSE(IsUsable((*view)->times, kNow));
  EXPECT_TRUE((*view)->can_refresh);
}

TEST(RenewedTest, RefreshTokenIsTheLastThingLeftOut) {
  const v1::TokenSet without_id = Renewed(Old(), Answer(31 << 10, 20 << 10, 31 << 10), kNow);
  EXPECT_LE(without_id.ByteSizeLong(), kVaultLimit);
  EXPECT_EQ(without_id.access_token().size(), 31U << 10);
  EXPECT_TRUE(without_id.id_token().empty());

  TokenAnswer scoped = Answer(31 << 10, 20 << 10, 0);
  scoped.scopes = std::vector<std::string>(20'000, "s");
  const v1::TokenSet old_scopes = Renewed(Old(), scoped, kNow);
  EXPECT_LE(old_scopes.ByteSizeLong(), kVaultLimit);
  EXPECT_EQ(old_scopes.scopes_size(), 1);
  EXPECT_EQ(old_scopes.access_token().size(), 31U << 10);

  const v1::TokenSet without_access = Renewed(Old(), Answer(31 << 10, 60 << 10, 0), kNow);
  EXPECT_LE(without_access.ByteSizeLong(), kVaultLimit);
  EXPECT_EQ(without_access.refresh_token().size(), 60U << 10);
  EXPECT_EQ(FromTimestamp(without_access.expires_at()), kNow);
}

TEST(RenewedTest, AccessTokenThatIsAJwtTellsItsEndWhereTheAnswerDoesNot) {
  TokenAnswer answer;
  answer.access_token = JwtWith(absl::StrCat(R"({"exp":)", absl::ToUnixSeconds(kNow) + 600, "}"));
  EXPECT_EQ(FromTimestamp(Linked(answer, {}, kNow).expires_at()), kNow + absl::Minutes(10));
  EXPECT_EQ(FromTimestamp(Renewed(Old(), answer, kNow).expires_at()), kNow + absl::Minutes(10));
  answer.access_token = JwtWith(absl::StrCat(R"({"exp":)", absl::ToUnixSeconds(kNow) + 600, ".5}"));
  EXPECT_EQ(FromTimestamp(Linked(answer, {}, kNow).expires_at()), kNow + absl::Minutes(10));

  answer.expires_in = absl::Hours(1);
  EXPECT_EQ(FromTimestamp(Linked(answer, {}, kNow).expires_at()), kNow + absl::Hours(1))
      << "the answer's word goes first";
}

TEST(RenewedTest, EndOfAJwtThatCannotBeBelievedIsUnknown) {
  const int64_t now = absl::ToUnixSeconds(kNow);
  for (const std::string& claims :
       {absl::StrCat(R"({"exp":)", now, "}"), absl::StrCat(R"({"exp":)", now - 60, "}"), std::string(R"({"exp":0})"),
        std::string(R"({"exp":-1})"), absl::StrCat(R"({"exp":)", now + 367 * 86'400, "}"),
        std::string(R"({"exp":1e300})"), std::string(R"({"exp":"2030"})"), std::string("{}"), std::string("no json")}) {
    TokenAnswer answer;
    answer.access_token = JwtWith(claims);
    EXPECT_FALSE(Linked(answer, {}, kNow).has_expires_at()) << claims;
  }
  TokenAnswer opaque;
  opaque.access_token = Secret(std::string("gho_a.b.c"));
  EXPECT_FALSE(Linked(opaque, {}, kNow).has_expires_at());
}

TEST(LinkedTest, IdTokenThatDoesNotFitIsLeftOut) {
  const v1::TokenSet tokens = Linked(Answer(31 << 10, 20 << 10, 31 << 10), {"repo"}, kNow);

  EXPECT_LE(tokens.ByteSizeLong(), kVaultLimit);
  EXPECT_TRUE(tokens.id_token().empty());
  EXPECT_EQ(tokens.refresh_token().size(), 20U << 10);
  EXPECT_EQ(FromTimestamp(tokens.linked_at()), kNow);
}

}  // namespace
}  // namespace sallyport::token_broker
