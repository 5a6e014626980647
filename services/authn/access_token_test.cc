// SPDX-License-Identifier: Apache-2.0
#include "services/authn/access_token.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "services/authn/authn_testing.h"
#include "services/authn/identity.h"
#include "tests/testing/status_matchers.h"

namespace sallyport::authn {
namespace {

using ::sallyport::testing::IsOk;
using ::sallyport::testing::StatusIs;

const absl::Time kNow = absl::FromUnixSeconds(1'800'000'000);
constexpr char kUrl[] = "https://gw.example";

class AccessTokenTest : public ::testing::Test {
 protected:
  AccessTokenTest() : keys_(vault_, absl::Hours(1)), tokens_(kUrl, keys_, absl::Hours(1)) {
    EXPECT_THAT(keys_.Refresh(kNow), IsOk());
  }
  std::string Mint() { return tokens_.MintMcp({"corp:ann", "client", "grn_1", "a", "srv_a"}, kNow)->token; }
  // A token signed by our own key that says something else.
  std::string Forge(const nlohmann::json& change = nlohmann::json::object(), absl::string_view typ = "at+jwt") {
    nlohmann::json claims = {{"iss", kUrl},          {"aud", "https://gw.example/mcp/a"},
                             {"sub", "corp:ann"},    {"client_id", "c"},
                             {"sid", "grn_1"},       {"srv", "srv_a"},
                             {"scope", "mcp"},       {"jti", "j"},
                             {"iat", 1'800'000'000}, {"exp", 1'800'003'600}};
    claims.update(change);
    return *SignJwt(claims, typ, **keys_.Active());
  }

  FakeVaultClient vault_;
  SigningKeys keys_;
  AccessTokens tokens_;
};

TEST_F(AccessTokenTest, ComesBackAsItWasMinted) {
  ASSERT_OK_AND_ASSIGN(AccessToken token, tokens_.VerifyMcp(Mint(), "a", "srv_a", kNow));

  EXPECT_EQ(token.subject, "corp:ann");
  EXPECT_EQ(token.client_id, "client");
  EXPECT_EQ(token.grant_id, "grn_1");
  EXPECT_EQ(token.server_uid, "srv_a");
  EXPECT_EQ(token.scope, "mcp");
  EXPECT_EQ(token.expires_at, kNow + absl::Hours(1));
}

TEST_F(AccessTokenTest, ATokenForOneServerIsNoneForAnother) {
  EXPECT_THAT(tokens_.VerifyMcp(Mint(), "b", "srv_b", kNow), StatusIs(absl::StatusCode::kUnauthenticated));
  EXPECT_THAT(tokens_.VerifyMcp(Mint(), "ab", "srv_a", kNow), StatusIs(absl::StatusCode::kUnauthenticated));
}

TEST_F(AccessTokenTest, ASlugGivenToANewServerInheritsNoTokens) {
  EXPECT_THAT(tokens_.VerifyMcp(Mint(), "a", "srv_new", kNow), StatusIs(absl::StatusCode::kUnauthenticated));
}

TEST_F(AccessTokenTest, EndsAtItsExpiryWithoutLeeway) {
  EXPECT_THAT(tokens_.VerifyMcp(Mint(), "a", "srv_a", kNow + absl::Minutes(59)), IsOk());
  EXPECT_THAT(tokens_.VerifyMcp(Mint(), "a", "srv_a", kNow + absl::Hours(1)),
              StatusIs(absl::StatusCode::kUnauthenticated));
}

TEST_F(AccessTokenTest, AnotherGatewaysKeyIsWorthNothing) {
  FakeVaultClient other_vault;
  SigningKeys other_keys(other_vault, absl::Hours(1));
  ASSERT_THAT(other_keys.Refresh(kNow), IsOk());
  const AccessTokens other(kUrl, other_keys, absl::Hours(1));
  ASSERT_OK_AND_ASSIGN(MintedToken forged, other.MintMcp({"corp:ann", "client", "grn_1", "a", "srv_a"}, kNow));

  EXPECT_THAT(tokens_.VerifyMcp(forged.token, "a", "srv_a", kNow), StatusIs(absl::StatusCode::kUnauthenticated));
}

TEST_F(AccessTokenTest, WhatOurKeySignedForAnotherPurposeIsNoAccessToken) {
  ASSERT_THAT(tokens_.VerifyMcp(Forge(), "a", "srv_a", kNow), IsOk());
  const std::vector<nlohmann::json> bad = {{{"scope", "api"}},
                                           {{"jti", ""}},
                                           {{"client_id", ""}},
                                           {{"sid", ""}},
                                           {{"srv", ""}},
                                           {{"roles", {"admin"}}},
                                           {{"aud", {"https://gw.example/mcp/a", "x"}}},
                                           {{"iss", "https://gw.example/"}}};
  for (const nlohmann::json& change : bad) {
    EXPECT_THAT(tokens_.VerifyMcp(Forge(change), "a", "srv_a", kNow), StatusIs(absl::StatusCode::kUnauthenticated))
        << change.dump();
  }
  for (const char* typ : {"JWT", "id+jwt", "sallyport-passport+jwt"}) {
    EXPECT_THAT(tokens_.VerifyMcp(Forge(nlohmann::json::object(), typ), "a", "srv_a", kNow),
                StatusIs(absl::StatusCode::kUnauthenticated))
        << typ;
  }
}

TEST_F(AccessTokenTest, AnMcpTokenIsNoApiTokenAndTheReverse) {
  ASSERT_OK_AND_ASSIGN(MintedToken api, tokens_.MintApi({"corp:ann", kCliClientId, "grn_2", {}}, kNow));

  EXPECT_THAT(tokens_.VerifyApi(api.token, kNow), IsOk());
  EXPECT_THAT(tokens_.VerifyApi(Mint(), kNow), StatusIs(absl::StatusCode::kUnauthenticated));
  EXPECT_THAT(tokens_.VerifyMcp(api.token, "a", "srv_a", kNow), StatusIs(absl::StatusCode::kUnauthenticated));
}

TEST_F(AccessTokenTest, ApiTokensAreForTheBuiltInClientAlone) {
  EXPECT_FALSE(tokens_.MintApi({"corp:ann", "other", "grn_2", {}}, kNow).ok());
  EXPECT_FALSE(tokens_.MintApi({"corp:ann", kCliClientId, "", {"admin"}}, kNow).ok());
}

TEST_F(AccessTokenTest, TheTokenOfTheFirstAdministratorLivesAnHourHoweverLongOthersLive) {
  for (const absl::Duration lifetime : {absl::Minutes(5), absl::Hours(24)}) {
    const AccessTokens tokens(kUrl, keys_, lifetime);
    ASSERT_OK_AND_ASSIGN(MintedToken first, tokens.MintApi({kBootstrapSubject, kCliClientId, "", {"admin"}}, kNow));
    EXPECT_EQ(first.expires_at, kNow + absl::Hours(1));
    ASSERT_OK_AND_ASSIGN(MintedToken usual, tokens.MintApi({"corp:ann", kCliClientId, "grn_2", {}}, kNow));
    EXPECT_EQ(usual.expires_at, kNow + std::min(lifetime, absl::Hours(1)));
  }
}

TEST_F(AccessTokenTest, AServiceAccountsTokenEndsWithTheProofOfTheAccount) {
  const std::string account = std::string(kServiceAccountSubject) + "main:ops/admin";
  ASSERT_OK_AND_ASSIGN(const MintedToken minted,
                       tokens_.MintApi({account, kCliClientId, "", {}, kNow + absl::Seconds(90)}, kNow));
  EXPECT_EQ(minted.expires_at, kNow + absl::Seconds(90));
  ASSERT_OK_AND_ASSIGN(const AccessToken token, tokens_.VerifyApi(minted.token, kNow));
  EXPECT_EQ(token.subject, account);
  EXPECT_FALSE(tokens_.MintApi({account, kCliClientId, "", {}, kNow}, kNow).ok());
}

TEST_F(AccessTokenTest, AnExpiredTokenCanStillBeRevoked) {
  const std::string token = Mint();
  ASSERT_OK_AND_ASSIGN(AccessToken revoked, tokens_.VerifyForRevocation(token));
  EXPECT_EQ(revoked.grant_id, "grn_1");
  EXPECT_FALSE(tokens_.VerifyForRevocation(token + "x").ok());
  EXPECT_FALSE(tokens_.VerifyForRevocation(Forge(nlohmann::json::object(), "JWT")).ok());
}

TEST_F(AccessTokenTest, NothingIsMintedOrVerifiedBeforeKeysAreThere) {
  SigningKeys none(vault_, absl::Hours(1));
  const AccessTokens tokens(kUrl, none, absl::Hours(1));

  EXPECT_THAT(tokens.MintMcp({"corp:ann", "client", "grn_1", "a", "srv_a"}, kNow),
              StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_THAT(tokens.VerifyMcp(Mint(), "a", "srv_a", kNow), StatusIs(absl::StatusCode::kUnavailable));
}

}  // namespace
}  // namespace sallyport::authn
