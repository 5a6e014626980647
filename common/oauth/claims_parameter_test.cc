// SPDX-License-Identifier: Apache-2.0
#include "common/oauth/claims_parameter.h"

#include "absl/strings/str_cat.h"
#include <gtest/gtest.h>

namespace sallyport::oauth {
namespace {

TEST(ClaimsParameter, TakesAnObjectAsItIs) {
  const std::string claims = R"({"access_token":{"capolids":{"essential":true,"values":["c1"]}}})";
  EXPECT_EQ(ClaimsParameter(claims), claims);
}

TEST(ClaimsParameter, DropsWhatIsNoObjectOrTooLong) {
  for (const char* text : {"", "x", "[]", "null", R"("{}")", R"({"a":1)", R"({"a":1,"a":2})", "{\"a\":\"\xff\"}"}) {
    EXPECT_EQ(ClaimsParameter(text), "") << text;
  }
  const std::string longest = absl::StrCat(R"({"a":")", std::string(kMaxClaimsParameter - 8, 'x'), R"("})");
  ASSERT_EQ(longest.size(), kMaxClaimsParameter);
  EXPECT_EQ(ClaimsParameter(longest), longest);
  EXPECT_EQ(ClaimsParameter(absl::StrCat(longest, " ")), "");
  EXPECT_EQ(ClaimsParameter(absl::StrCat(R"({"a":")", std::string(1 << 20, 'x'), R"("})")), "");
}

TEST(MergeClaims, TakesNothingAwayFromWhatIsConfigured) {
  const std::string configured = R"({"id_token":{"acr":{"essential":true,"values":["mfa"]},"name":null}})";
  EXPECT_EQ(MergeClaims(configured, R"({"id_token":{"acr":null,"name":{"essential":true},"more":null},"userinfo":{}})"),
            R"({"id_token":{"acr":{"essential":true,"values":["mfa"]},"more":null,"name":null},"userinfo":{}})");
  EXPECT_EQ(MergeClaims(configured, "{}"), configured);
  EXPECT_EQ(MergeClaims("odd", "{}"), "odd");
}

}  // namespace
}  // namespace sallyport::oauth
