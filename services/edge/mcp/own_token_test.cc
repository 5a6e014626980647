// SPDX-License-Identifier: Apache-2.0
#include "services/edge/mcp/own_token.h"

#include "absl/strings/str_cat.h"
#include <gtest/gtest.h>

#include "common/text/base64url.h"

namespace sallyport::edge {
namespace {

const std::string kIssuer = "https://gw.example.com";

std::string Jwt(const std::string& claims) {
  return absl::StrCat(Base64UrlEncode(R"({"alg":"ES256"})"), ".", Base64UrlEncode(claims), ".c2ln");
}

TEST(OwnToken, IsFoundInAnySchemeAndBehindAnySeparator) {
  const std::string ours = Jwt(R"({"iss":"https://gw.example.com","sub":"x"})");
  for (const std::string& credentials :
       {ours, "Bearer " + ours, "bearer\t" + ours, "Token token=\"" + ours + "\"", "Custom a=b;c=" + ours + ",d=e",
        std::string("Bearer spr_abc"), std::string("Bearer spa_abc"), std::string("Basic,spa_abc")}) {
    EXPECT_TRUE(HoldsOurToken(credentials, kIssuer)) << credentials;
  }
}

TEST(OwnToken, OthersTokensAreNotOurs) {
  for (const std::string& credentials :
       {std::string(), std::string("Bearer "), std::string("Bearer opaque"), std::string("Bearer a.b.c"),
        std::string("Bearer a.b"), std::string("Bearer xspr_abc"),
        "Bearer " + Jwt(R"({"iss":"https://idp.example.com"})"), "Bearer " + Jwt(R"({"sub":"https://gw.example.com"})"),
        "Bearer " + Jwt(R"(["https://gw.example.com"])"), "Bearer " + Jwt(R"({"iss":["https://gw.example.com"]})"),
        "Bearer " + Jwt(R"({"iss":"https://gw.example.com.evil.example"})")}) {
    EXPECT_FALSE(HoldsOurToken(credentials, kIssuer)) << credentials;
  }
}

}  // namespace
}  // namespace sallyport::edge
